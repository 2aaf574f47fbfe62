"""fmtune.sagemaker.hyperparameters: SageMaker's names, defaults, ranges, and its container's words."""

import json

import pytest

from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters
from fmtune.sagemaker.hyperparameters import DEFAULTS, REQUIRED, SCHEMA, job_of, typed

NEEDED = {"feature_dim": "10", "num_factors": "4", "predictor_type": "regressor"}

# The container's default-conf.json, as it prints it.
PRINTED = {
    "epochs": 1, "mini_batch_size": "1000", "use_bias": "true", "use_linear": "true", "bias_lr": "0.1",
    "linear_lr": "0.001", "factors_lr": "0.0001", "bias_wd": "0.01", "linear_wd": "0.001", "factors_wd": "0.00001",
    "bias_init_method": "normal", "bias_init_sigma": "0.01", "linear_init_method": "normal",
    "linear_init_sigma": "0.01", "factors_init_method": "normal", "factors_init_sigma": "0.001",
    "batch_metrics_publish_interval": "500", "_data_format": "record", "_kvstore": "auto", "_learning_rate": "1.0",
    "_log_level": "info", "_num_gpus": "auto", "_num_kv_servers": "auto", "_optimizer": "adam",
    "_tuning_objective_metric": "", "_use_full_symbolic": "true", "_wd": "1.0",
}  # fmt: skip


def test_the_defaults_are_the_containers():
    """One by one, and nothing else has a default."""
    assert {name: str(value) for name, value in PRINTED.items()} == DEFAULTS


def test_what_trains_by_default():
    """SageMaker's rates, decays and initial values; file order and padding; lazy Adam unless the network is dense."""
    found = job_of(NEEDED).model_settings(dense=False)
    assert found == Hyperparameters(num_factors=4, shuffle="none", pad_last_batch=True)
    assert job_of(NEEDED).model_settings(dense=True) == found.replace(lazy=False)
    assert (job_of(NEEDED).feature_dim, job_of(NEEDED).interval) == (10, 500)


def test_every_value_of_the_table_arrives():
    """Text or number; of those that the model has, the typed value is what trains."""
    values = {
        "epochs": "7", "mini_batch_size": 20, "clip_gradient": "100", "eps": "1e-3", "rescale_grad": "0.01",
        "use_bias": "False", "use_linear": "true", "seed": "3", "optimizer": "adagrad", "lazy": "false",
        "shuffle": "once", "shuffle_seed": "4", "pad_last_batch": "false",
        "linear_l1": "0.5", "factors_l1": "0.25",
    }  # fmt: skip
    for group in ("bias", "linear", "factors"):
        values |= {f"{group}_{what}": "0.25" for what in ("lr", "wd", "init_sigma", "init_scale", "init_value")}
        values[f"{group}_init_method"] = "uniform"
    found = job_of({**NEEDED, **values}).model_settings(dense=True)
    for name, value in values.items():
        kind = PARAMETERS[name].type
        expected = str(value).lower() == "true" if kind is bool else kind(value)
        assert getattr(found, name) == expected, name


@pytest.mark.parametrize("off", ["0", "0.0", "-1"])
def test_clip_gradient_of_zero_is_off(off):
    """As in MXNet."""
    assert job_of({**NEEDED, "clip_gradient": off}).model_settings(dense=False).clip_gradient is None


def test_the_hidden_rates_multiply():
    """_learning_rate and _wd are factors of each group's own, as in MXNet."""
    found = job_of({**NEEDED, "_learning_rate": "2", "_wd": "0"}).model_settings(dense=False)
    assert (found.bias_lr, found.linear_lr, found.factors_lr) == (0.2, 0.002, 0.0002)
    assert (found.bias_wd, found.linear_wd, found.factors_wd) == (0, 0, 0)


def test_without_compat():
    """fmtune's own shuffle, no padding, lazy in both networks."""
    found = job_of({**NEEDED, "sagemaker_compat": "false"}).model_settings(dense=True)
    assert found == Hyperparameters(num_factors=4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mini_batch_siz": "1"}, "Additional properties are not allowed ('mini_batch_siz' was unexpected)"),
        ({"a": "1", "b": "1"}, "Additional properties are not allowed ('a', 'b' were unexpected)"),
        ({"feature_dim": "abc"}, "'abc' is not valid under any of the given schemas\n\nFailed validating 'oneOf' in "
         "schema['properties']['feature_dim']:\n    {'oneOf': [{'pattern': '^([1-9][0-9]*)$', 'type': 'string'}, "
         "{'minimum': 1, 'type': 'integer'}]}\n\nOn instance['feature_dim']:\n    'abc'"),
        ({"num_factors": "0"}, "'0' is not valid under any of the given schemas"),
        ({"epochs": "1.5"}, "'1.5' is not valid under any of the given schemas"),
        ({"epochs": -3}, "'-3' is not valid under any of the given schemas"),
        ({"mini_batch_size": "9" * 30}, "is not valid under any of the given schemas"),
        ({"bias_lr": "-0.1"}, "'-0.1' is not valid under any of the given schemas"),
        ({"factors_wd": "nan"}, "'nan' is not valid under any of the given schemas"),
        ({"eps": "1e999"}, "'1e999' is not valid under any of the given schemas"),
        ({"eps": "0"}, "eps must be above 0"),
        ({"predictor_type": "regresor"}, "'regresor' is not one of ['binary_classifier', 'regressor']"),
        ({"bias_init_method": "xavier"}, "'xavier' is not one of ['normal', 'uniform', 'constant']"),
        ({"use_bias": "1"}, "'1' is not one of ['true', 'false']"),
        ({"_optimizer": "sgd"}, "'sgd' is not supported for '_optimizer'"),
        ({"seed": "x"}, "seed cannot be 'x'"),
    ],
)  # fmt: skip
def test_faults_in_the_containers_words(change, said):
    """Unknown names, wrong forms, values out of range."""
    with pytest.raises(UsageError) as caught:
        job_of({**NEEDED, **change})
    assert said in caught.value.what


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_required(name):
    """feature_dim, num_factors and predictor_type."""
    with pytest.raises(UsageError, match=f"No value\\(s\\) were specified for '{name}' which are required"):
        job_of({key: value for key, value in NEEDED.items() if key != name})


def test_all_faults_are_found_at_once():
    """Not one in each six minutes; a misspelt name gets a suggestion."""
    with pytest.raises(UsageError) as caught:
        job_of({"num_factor": "4", "epochs": "0", "predictor_type": "x"})
    for part in ("'num_factor'", "'feature_dim'", "'num_factors'", "'0'", "'x'"):
        assert part in caught.value.what
    assert "did you mean 'num_factors'" in str(caught.value.hint)


def test_irrelevant_initial_values_are_accepted():
    """Scale, sigma and value for any method at once, as the SDK sends them."""
    every = {f"{g}_init_{w}": "0.1" for g in ("bias", "linear", "factors") for w in ("sigma", "scale", "value")}
    for method in SCHEMA["bias_init_method"].choices:
        job_of({**NEEDED, **every, "bias_init_method": method})


def test_the_final_configuration_is_text():
    """As it goes into meta.json."""
    final = job_of({**NEEDED, "epochs": 3, "use_bias": False}).final
    assert (final["epochs"], final["use_bias"], final["factors_wd"]) == ("3", "false", "0.00001")
    assert json.loads(json.dumps(final)) == final


def test_a_flag_is_true_or_false():
    """In any case of letters, and nothing else."""
    assert (typed("use_bias", "True"), typed("use_bias", "false")) == (True, False)
    with pytest.raises(UsageError, match="use_bias cannot be 'maybe'"):
        typed("use_bias", "maybe")
