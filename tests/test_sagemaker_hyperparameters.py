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


INT = "{'oneOf': [{'pattern': '^([1-9][0-9]*)$', 'type': 'string'}, {'minimum': 1, 'type': 'integer'}]}"
PATTERN = r"{'pattern': '^[-+]?(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][-+]?[0-9]+)?$', 'type': 'string'}"
FLOAT = f"{{'oneOf': [{PATTERN}, {{'type': 'number'}}]}}"
POSITIVE = f"{{'oneOf': [{PATTERN}, {{'minimum': 0.0, 'type': 'number'}}]}}"


def failed(name, value, schema, what="{!r} is not valid under any of the given schemas", rule="oneOf"):
    """Return a fault as the container's schema checker prints it."""
    return f"""{what.format(value)}

Failed validating {rule!r} in schema['properties'][{name!r}]:
    {schema}

On instance[{name!r}]:
    {value!r}"""


FAULTS = [
    ({"mini_batch_siz": "1"}, "Additional properties are not allowed ('mini_batch_siz' was unexpected)",
     "did you mean 'mini_batch_size' instead of 'mini_batch_siz'?"),
    ({"a": "1", "b": "1"}, "Additional properties are not allowed ('a', 'b' were unexpected)", None),
    ({"feature_dim": "abc"}, failed("feature_dim", "abc", INT), None),
    ({"num_factors": "0"}, failed("num_factors", "0", INT), None),
    ({"epochs": "1.5"}, failed("epochs", "1.5", INT), None),
    ({"epochs": -3}, failed("epochs", "-3", INT), None),
    ({"batch_metrics_publish_interval": "0"}, failed("batch_metrics_publish_interval", "0", INT), None),
    ({"mini_batch_size": "9" * 19}, failed("mini_batch_size", "9" * 19, INT), None),
    ({"bias_lr": "-0.1"}, failed("bias_lr", "-0.1", POSITIVE), None),
    ({"factors_wd": "nan"}, failed("factors_wd", "nan", POSITIVE), None),
    ({"linear_l1": "-1"}, failed("linear_l1", "-1", POSITIVE), None),
    ({"eps": "1e999"}, failed("eps", "1e999", FLOAT), None),
    ({"clip_gradient": "x"}, failed("clip_gradient", "x", FLOAT), None),
    ({"eps": "0"}, "eps must be above 0, not 0.0", None),
    ({"predictor_type": "regresor"},
     failed("predictor_type", "regresor", "{'enum': ['binary_classifier', 'regressor'], 'type': 'string'}",
            "{!r} is not one of ['binary_classifier', 'regressor']", "enum"),
     "predictor_type: did you mean 'regressor'?"),
    ({"bias_init_method": "xavier"},
     failed("bias_init_method", "xavier", "{'enum': ['normal', 'uniform', 'constant'], 'type': 'string'}",
            "{!r} is not one of ['normal', 'uniform', 'constant']", "enum"), None),
    ({"use_bias": "1"},
     failed("use_bias", "1", "{'enum': ['true', 'false']}", "{!r} is not one of ['true', 'false']", "enum"), None),
    ({"_optimizer": "sgd"}, "'sgd' is not supported for '_optimizer'; it must be 'adam'", "leave _optimizer out"),
    ({"seed": "x"}, "seed cannot be 'x'", None),
    ({"epochs": "0", "seed": "x"}, failed("epochs", "0", INT) + "\nseed cannot be 'x'", None),
]  # fmt: skip


@pytest.mark.parametrize(("change", "what", "hint"), FAULTS, ids=[str(change) for change, _, _ in FAULTS])
def test_faults_in_the_containers_words(change, what, hint):
    """Unknown names, wrong forms, values out of range: word for word, with what to do."""
    with pytest.raises(UsageError) as caught:
        job_of({**NEEDED, **change})
    assert (caught.value.where, caught.value.what, caught.value.hint) == ("hyperparameters.json", what, hint)


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_required(name):
    """feature_dim, num_factors and predictor_type."""
    with pytest.raises(UsageError) as caught:
        job_of({key: value for key, value in NEEDED.items() if key != name}, "job")
    said = f"No value(s) were specified for '{name}' which are required hyperparameter(s)"
    assert str(caught.value) == f"job: {said}\n  hint: set {name}"


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
