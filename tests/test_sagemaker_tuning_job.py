"""fmtune.sagemaker.tuning_job and tuning_export: SageMaker's tuning jobs as study files, and back."""

import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from fmtune.errors import StudyFileError, UsageError
from fmtune.sagemaker.dialect import DialectWarning
from fmtune.sagemaker.logs import Log
from fmtune.sagemaker.tuning_export import job_of, metric_definition
from fmtune.sagemaker.tuning_job import OBJECTIVES, study_of
from fmtune.sagemaker.tuning_ranges import TUNABLE
from fmtune.sagemaker.verbs import export_tuning_job, import_tuning_job
from fmtune.sagemaker.warm_start import parents
from fmtune.tune import study as studies
from fmtune.tune.claims import New
from fmtune.tune.spec import Spec, parse, read
from fmtune.tune.storage import open_storage, sqlite_url
from fmtune.tune.store import Store
from tests.fm_reference import compiled
from tests.study_fixtures import write_data


def continuous(name: str, low: str = "1e-8", high: str = "512", scaling: str | None = "Logarithmic") -> dict[str, str]:
    entry = {"Name": name, "MinValue": low, "MaxValue": high}
    return entry if scaling is None else {**entry, "ScalingType": scaling}


JOB: dict[str, Any] = {
    "HyperParameterTuningJobName": "fm-movielens-1",
    "HyperParameterTuningJobConfig": {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "test:rmse"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 3},
        "ParameterRanges": {
            "ContinuousParameterRanges": [continuous("factors_lr"), continuous("bias_wd", "0", "1", "Linear")],
            "IntegerParameterRanges": [
                {"Name": "mini_batch_size", "MinValue": "100", "MaxValue": "10000", "ScalingType": "Auto"}
            ],
            "CategoricalParameterRanges": [{"Name": "num_factors", "Values": ["16", "64"]}],
        },
    },
    "TrainingJobDefinition": {
        "StaticHyperParameters": {
            "feature_dim": "2625", "predictor_type": "regressor", "epochs": "50", "clip_gradient": "0",
            "_tuning_objective_metric": "test:rmse", "linear_lr": "0.01",
        },
        "AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "File"},
        "InputDataConfig": [
            {"ChannelName": name, "DataSource": {"S3DataSource": {"S3Uri": f"s3://bucket/{name}"}}}
            for name in ("train", "test")
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "RoleArn": "arn:aws:iam::1:role/x",
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    },
}  # fmt: skip


def changed(*path: str, value: Any) -> dict[str, Any]:
    job = copy.deepcopy(JOB)
    part = job
    for key in path[:-1]:
        part = part.setdefault(key, {})
    part[path[-1]] = value
    return job


def changed_static(job: dict[str, Any], **static: str) -> dict[str, Any]:
    job["TrainingJobDefinition"]["StaticHyperParameters"] |= static
    return job


def config(key: str, value: Any) -> dict[str, Any]:
    return changed("HyperParameterTuningJobConfig", key, value=value)


def ranges(kind: str, *entries: Any) -> dict[str, Any]:
    return config("ParameterRanges", {kind: list(entries), "CategoricalParameterRanges": FACTORS})


FACTORS = [{"Name": "num_factors", "Values": ["16", "64"]}]


def noted(job: dict[str, Any], **options: Any) -> tuple[Spec, str, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = study_of(job, **options)
    assert all(issubclass(w.category, DialectWarning) for w in caught)
    said = [str(w.message) for w in caught]
    assert all(f"# {words}" in text for words in said)
    return parse(text), text, said


def test_a_job_becomes_a_study():
    """Without a warning: every part of a plain job has its place."""
    spec, text, said = noted(JOB)
    assert said == []
    assert (spec.study_name, spec.objective, spec.n_trials, spec.pack) == ("fm-movielens-1", "test:rmse", 20, 3)
    assert (spec.sampler.name, spec.pruner.name, spec.predictor_type) == ("tpe", "none", "regressor")
    assert {name: str(d) for name, d in spec.search_space.items()} == {
        "factors_lr": "1e-08..512 log", "bias_wd": "0..1", "mini_batch_size": "100..10000 log",
        "num_factors": "[16, 64]",
    }  # fmt: skip
    assert spec.hyperparameters == {
        "shuffle": "none", "pad_last_batch": True, "predictor_type": "regressor", "epochs": 50, "linear_lr": 0.01,
    }  # fmt: skip
    assert (spec.data.train, spec.data.test, spec.data.feature_dim) == (("data/train",), ("data/test",), 2625)
    copies = "aws s3 cp --recursive s3://bucket/ data/train --exclude '*' --include 'train*'"
    for words in (copies, "RoleArn", "clip_gradient: 0 is off"):
        assert words in text


@pytest.mark.parametrize(("name", "form"), TUNABLE.items())
def test_every_tunable_of_fm_tuning(name, form):
    """Each parameter of SageMaker's page, with its recommended range, searched by name or left to SageMaker."""
    low, high = form.removesuffix(" log").split("..")
    kind = "IntegerParameterRanges" if name in ("epochs", "mini_batch_size") else "ContinuousParameterRanges"
    entry = continuous("epoch" if name == "epochs" else name, low, high)
    array, _, key = name.partition("_init_")
    used = {f"{array}_init_method": {"sigma": "normal", "scale": "uniform", "value": "constant"}[key]} if key else {}
    definition = {"TrainingJobDefinition": {"StaticHyperParameters": used}}
    spec, _, said = noted(ranges(kind, entry) | definition)
    found = spec.search_space[name]
    assert (found.log, found.low, found.high) == (True, float(low), float(high))
    assert len(said) == 2  # no channels
    spec, _, said = noted(ranges("AutoParameters", {"Name": name, "ValueHint": "1"}) | definition)
    assert spec.search_space[name] == found
    assert len(said) == 3


def test_a_range_without_effect_is_left_out_and_said():
    """A study is no study with it; SageMaker searches it all the same."""
    spec, _, said = noted(ranges("ContinuousParameterRanges", continuous("factors_init_scale")))
    assert set(spec.search_space) == {"num_factors"}
    assert "factors_init_scale has no effect: factors_init_method is 'normal', its default; it is left out" in said


def test_seventeen_are_tunable():
    """Fifteen numbers of three groups, epochs and mini_batch_size."""
    assert len(TUNABLE) == 17


@pytest.mark.parametrize(
    ("scaling", "low", "high", "form", "warned"),
    [
        ("Linear", "0.1", "0.9", "0.1..0.9", False),
        ("Logarithmic", "1e-3", "0.9", "0.001..0.9 log", False),
        ("Logarithmic", "0", "0.9", "1e-08..0.9 log", True),
        ("ReverseLogarithmic", "0", "0.99", "0..0.99", True),
        ("Auto", "0.1", "0.9", "0.1..0.9", False),
        ("Auto", "1e-8", "512", "1e-08..512 log", False),
        (None, "0", "512", "0..512", False),
        ("Quadratic", "0.1", "0.9", "0.1..0.9", True),
    ],
)
def test_scaling(scaling, low, high, form, warned):
    """Auto is logarithmic from two decades on; what has no counterpart is said, and searched evenly."""
    spec, text, said = noted(ranges("ContinuousParameterRanges", continuous("factors_wd", low, high, scaling)))
    assert str(spec.search_space["factors_wd"]) == form
    assert bool(said) == warned
    if scaling in (None, "Auto"):
        assert "ScalingType Auto is taken as" in text


@pytest.mark.parametrize(
    ("strategy", "sampler", "pruner"),
    [("Bayesian", "tpe", "none"), ("Random", "random", "none"), ("Hyperband", "random", "hyperband")],
)
def test_strategies(strategy, sampler, pruner):
    """Bayesian is tpe; Hyperband draws at random and prunes."""
    job = config("Strategy", strategy)
    job["HyperParameterTuningJobConfig"]["StrategyConfig"] = {
        "HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 50}
    }
    spec, _, said = noted(job)
    assert (spec.sampler.name, spec.pruner.name, said) == (sampler, pruner, [])
    if strategy == "Hyperband":
        assert spec.pruner.options == {"min_resource": 2, "max_resource": 50}


def test_grid():
    """Choices only; as many trials as there are combinations."""
    job = config("Strategy", "Grid")
    job["HyperParameterTuningJobConfig"]["ParameterRanges"] = {"CategoricalParameterRanges": [
        {"Name": "num_factors", "Values": ["8", "16", "32"]}, {"Name": "factors_lr", "Values": ["0.1", "0.01"]},
    ]}  # fmt: skip
    job["HyperParameterTuningJobConfig"]["ResourceLimits"] = {"MaxParallelTrainingJobs": 2}
    spec, _, said = noted(job)
    assert (spec.sampler.name, spec.n_trials, said) == ("grid", 6, [])


def test_early_stopping():
    """Auto ends no job of a factorization machine on SageMaker, nor a trial here; the file names the rule."""
    spec, text, said = noted(config("TrainingJobEarlyStoppingType", "Auto"))
    assert (spec.pruner.name, said) == ("none", [])
    assert "TrainingJobEarlyStoppingType Auto" in text and "`pruner: running_median`" in text


def test_limits_and_seed():
    """Runtime is the timeout, RandomSeed the seed; criteria of completion have no counterpart and are named."""
    limits = {"MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 900}
    job = config("ResourceLimits", limits)
    job["HyperParameterTuningJobConfig"] |= {
        "RandomSeed": 17,
        "TuningJobCompletionCriteria": {
            "TargetObjectiveMetricValue": 0.9, "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 4},
            "ConvergenceDetected": {"CompleteOnConvergence": "Enabled"},
        },
    }  # fmt: skip
    spec, _, said = noted(job)
    assert (spec.n_trials, spec.timeout, spec.seed) == (5, 900.0, 17)
    assert [words.split()[0] for words in said] == [
        "TargetObjectiveMetricValue", "BestObjectiveNotImproving", "ConvergenceDetected",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (changed("Autotune", value={"Mode": "Enabled"}), "Autotune"),
        (config("NewThing", 1), "NewThing"),
        (changed("TrainingJobDefinition", "NewThing", value=1), "NewThing"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"_kvstore": "dist"}), "_kvstore"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"my_own": "1"}), "my_own"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"mini_batch_siz": "1"}),
         "did you mean 'mini_batch_size'?"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"_wd": "0.5"}), "_wd: 0.5 multiplies all"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"factors_init_method": "constant"}),
         "factors_init_value is not given: it is 0"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"factors_lr": "1"}), "it is searched"),
        (changed("TrainingJobDefinition", "ResourceConfig", value={"InstanceCount": 4}), "4 instances"),
        (changed("TrainingJobDefinition", "InputDataConfig", value=[]), "no train channel"),
        (changed("TrainingJobDefinitions", value=[JOB["TrainingJobDefinition"], {"DefinitionName": "b"}]),
         "only the first"),
        (ranges("ContinuousParameterRanges", continuous("factors_lr"), continuous("gamma")), "gamma"),
        (ranges("ContinuousParameterRanges", continuous("clip_gradient", "0", "9", "Linear")), "begins at"),
        (ranges("AutoParameters", {"Name": "eps"}, {"Name": "bias_lr"}), "eps: SageMaker was to"),
        (changed("HyperParameterTuningJobConfig", "ParameterRanges", value={
            "ContinuousParameterRanges": [continuous("factors_lr")]}), "num_factors"),
    ],
)  # fmt: skip
def test_nothing_is_dropped_in_silence(job, said):
    """What has no counterpart is a comment and a warning, and the study is sound."""
    _, text, words = noted(job)
    assert any(said in one for one in words), words
    assert said in text


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({}, "HyperParameterTuningJobConfig is missing"),
        (config("HyperParameterTuningJobObjective", {"MetricName": "validation:auc"}), "no objective of a fact"),
        (config("HyperParameterTuningJobObjective", {"MetricName": "test:rmse", "Type": "Maximize"}),
         "to maximize test:rmse"),
        (config("Strategy", "Guess"), "unknown Strategy 'Guess'"),
        (config("ParameterRanges", {}), "leaves nothing to search: no range is for a hyperparameter that is searched"),
        (config("ParameterRanges", {"ContinuousParameterRanges": [continuous("linear_lr")],
                                    "CategoricalParameterRanges": [{"Name": "use_linear", "Values": ["false"]}]}),
         "leaves nothing to search: linear_lr has no effect: use_linear is false"),
        (ranges("ContinuousParameterRanges", continuous("num_factors", "2", "8")), "num_factors has two ranges"),
        ({"TrainingJobName": "x", "HyperParameters": {}}, "this is a training job"),
        (ranges("ContinuousParameterRanges", continuous("bias_lr", "x")), "'x' is not a number"),
        (ranges("ContinuousParameterRanges", continuous("bias_lr", "2", "1")), "is not below high"),
        (changed("TrainingJobDefinition", "StaticHyperParameters", value={"predictor_type": "binary_classifier"}),
         "is for a regressor"),
    ],
)  # fmt: skip
def test_jobs_that_make_no_study(job, said):
    """Refused with the reason."""
    with warnings.catch_warnings(), pytest.raises(UsageError, match=said) as caught:
        warnings.simplefilter("ignore")
        study_of(job)
    assert not isinstance(caught.value, StudyFileError)


def test_hostile_text_stays_a_comment():
    """Line breaks in a name or value do not become lines of the study."""
    job = changed("HyperParameterTuningJobName", value="a\nn_trials: 1\n\u2028seed: 5")
    job["Evil\nstorage: x"] = "\nseed: 9"
    spec, _, _ = noted(job)
    assert (spec.n_trials, spec.seed, spec.storage) == (20, 0, None)


def test_a_range_of_one_value_is_fixed():
    """Also a single choice."""
    spec, _, _ = noted(config("ParameterRanges", {
        "ContinuousParameterRanges": [continuous("bias_lr", "0.5", "0.5"), continuous("bias_wd")],
        "CategoricalParameterRanges": [
            {"Name": "bias_init_method", "Values": ["constant"]}, {"Name": "num_factors", "Values": ["8"]},
        ],
    }))  # fmt: skip
    assert spec.hyperparameters["bias_lr"] == 0.5
    assert spec.hyperparameters["bias_init_method"] == "constant"
    assert list(spec.search_space) == ["bias_wd"]


def test_warm_start():
    """The best configurations of earlier studies that fit the space are tried first; missing ones are named."""
    warm = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": n} for n in ("one", "two")],
            "WarmStartType": "IdenticalDataAndAlgorithm"}  # fmt: skip
    job = changed("WarmStartConfig", value=warm)
    found = {"one": [{"factors_lr": 0.5, "num_factors": 16, "old": 3}, {"factors_lr": 9999.0}]}
    spec, _, said = noted(job, parents=found)
    assert spec.enqueue == ({"factors_lr": 0.5, "num_factors": 16},)
    assert any("warm start from two" in words for words in said)


@compiled
def test_warm_start_from_a_study_that_ran(tmp_path):
    """A job's study is run; the next job, which names it as parent, begins with its best configurations."""
    write_data(tmp_path, 200)
    job = config("HyperParameterTuningJobObjective", {"Type": "Minimize",
                 "MetricName": "test:binary_classification_cross_entropy"})  # fmt: skip
    job["HyperParameterTuningJobName"] = "first"
    job["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] = 3
    job["TrainingJobDefinition"]["StaticHyperParameters"] = {"feature_dim": "40", "epochs": "2"}
    text = import_tuning_job(dump(tmp_path / "job.json", job), data=".")
    text = text.replace("./train", "train.npz").replace("./test", "test.npz")
    (tmp_path / "study.yaml").write_text(text)
    studies.run(read(tmp_path / "study.yaml"), root=tmp_path)
    warm = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "first"}],
        "WarmStartType": "TransferLearning",
    }
    second = {**job, "HyperParameterTuningJobName": "second", "WarmStartConfig": warm}
    assert len(parents(second, tmp_path)["first"]) == 3
    with pytest.warns(DialectWarning, match="the best configurations of first are tried first"):
        text = import_tuning_job(dump(tmp_path / "job2.json", second), runs=tmp_path)
    assert len(parse(text).enqueue) == 3


def dump(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_files_that_are_no_job(tmp_path):
    """Not there, or not JSON."""
    with pytest.raises(UsageError, match="cannot be read"):
        import_tuning_job(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        import_tuning_job(tmp_path / "bad.json")


def test_warnings_come_before_an_error_that_names_the_file(tmp_path):
    """What was said of a job is not lost where the job makes no study."""
    job = changed_static(ranges("ContinuousParameterRanges", continuous("bias_lr", "2", "1")), my_own="1")
    file = dump(tmp_path / "job.json", job)
    with pytest.warns(DialectWarning, match="my_own"), pytest.raises(UsageError, match="is not below high") as error:
        import_tuning_job(file)
    assert error.value.where == str(file)


def test_the_docs_print_how_a_score_is_found_in_the_log():
    """For each objective, as an exported job has it."""
    text = (Path(__file__).parents[1] / "docs/sagemaker.md").read_text()
    for made in map(metric_definition, OBJECTIVES):
        assert f"| `{made['Name']}` | `{made['Regex']}` |" in text


def test_there_and_back():
    """The exported job of an imported one has the same ranges, objective, limits and static values."""
    given = changed("HyperParameterTuningJobConfig", "ParameterRanges", "CategoricalParameterRanges", value=[])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = job_of(noted(changed_static(given, num_factors="16"))[0])
        again = job_of(noted(back)[0])
    assert back == again
    ranges = back["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert ranges["ContinuousParameterRanges"][0] == {**continuous("factors_lr", "1e-08", "512.0")}
    assert back["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"] == {
        "Type": "Minimize", "MetricName": "test:rmse"}  # fmt: skip
    static = back["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static == {
        "feature_dim": "2625", "predictor_type": "regressor", "epochs": "50", "linear_lr": "0.01", "num_factors": "16",
    }  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_goes_both_ways(objective):
    """SageMaker's four, with their direction."""
    kind = "Minimize" if objective in ("test:rmse", "test:binary_classification_cross_entropy") else "Maximize"
    job = config("HyperParameterTuningJobObjective", {"Type": kind, "MetricName": objective})
    del job["TrainingJobDefinition"]["StaticHyperParameters"]["predictor_type"]
    with pytest.warns(DialectWarning, match="num_factors"):
        made = job_of(noted(job)[0])
    found = made["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    assert found == {"Type": kind, "MetricName": objective}


STUDY = """\
study_name: my_study.2
data: {train: a, test: b}
objective: test:rmse
hyperparameters: {optimizer: adagrad, use_bias: false}
search_space: {num_factors: 2..64 step 2, epochs: 1..64, lazy: [true, false], linear_lr: 0..1 step 0.25,
  mini_batch_size: 20..200, linear_wd: 0..1 step 0.01}
sampler: gp
pruner: {name: hyperband, min_resource: 1}
n_trials: 30
timeout: 5s
seeds: 3
enqueue: [{epochs: 2}]
"""


def test_what_a_tuning_job_cannot_have_is_said():
    """A warning each; names and limits are brought into SageMaker's own bounds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = job_of(parse(STUDY))
    said = " | ".join(str(w.message) for w in caught)
    expected = ("optimizer: adagrad", "lazy: SageMaker has no such", "linear_wd: a range",
                "num_factors: SageMaker does not tune it", "seeds: 3", "1 enqueued",
                "feature_dim: SageMaker requires it",
                "shuffle: once; SageMaker takes rows in the file's order", "pad_last_batch: false",
                "mini_batch_size: 20..200 goes beyond what SageMaker's page has, 100 to 10000")
    for words in expected:
        assert words in said
    made = job["HyperParameterTuningJobConfig"]
    assert (job["HyperParameterTuningJobName"], made["Strategy"]) == ("my-study-2", "Hyperband")
    assert made["StrategyConfig"] == {"HyperbandStrategyConfig": {"MinResource": 1}}
    assert made["TrainingJobEarlyStoppingType"] == "Off"
    assert made["ResourceLimits"]["MaxRuntimeInSeconds"] == 120
    assert made["ParameterRanges"]["CategoricalParameterRanges"] == [
        {"Name": "linear_lr", "Values": ["0.0", "0.25", "0.5", "0.75", "1.0"]}]  # fmt: skip
    assert job["TrainingJobDefinition"]["StaticHyperParameters"]["use_bias"] == "false"


def test_an_image_of_fmtunes_tunes_what_sagemakers_does_not():
    """Its job says how the score is found in the log, and that training is as the study's."""
    text = STUDY.replace("enqueue: [{epochs: 2}]\n", "").replace("seeds: 3\n", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = job_of(parse(text), "1.dkr.ecr.x.amazonaws.com/fmtune:1")
    definition = job["TrainingJobDefinition"]
    assert definition["AlgorithmSpecification"] == {
        "TrainingImage": "1.dkr.ecr.x.amazonaws.com/fmtune:1", "TrainingInputMode": "File",
        "MetricDefinitions": [{
            "Name": "test:rmse", "Regex": r"#quality_metric: host=\S+, test rmse <loss>=(\S+)"}],
    }  # fmt: skip
    ranges = job["HyperParameterTuningJobConfig"]["ParameterRanges"]
    searched = {entry["Name"] for entries in ranges.values() for entry in entries}
    assert searched == set(parse(text).search_space)
    static = definition["StaticHyperParameters"]
    assert static["optimizer"] == "adagrad" and static["sagemaker_compat"] == "false"
    lines: list[str] = []
    Log(lines.append, "algo-1").test({"rmse": 0.5})
    (found,) = [m for m in map(re.compile(definition["AlgorithmSpecification"]["MetricDefinitions"][0]["Regex"]).search,
                               lines) if m]  # fmt: skip
    assert found[1] == "0.5"


def test_what_a_job_leaves_open_can_be_imported_again():
    """A study without feature_dim makes a job with a placeholder, and that job a study without feature_dim."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = job_of(parse(STUDY))
        again = parse(study_of(job))
    assert job["TrainingJobDefinition"]["StaticHyperParameters"]["feature_dim"] == "<feature_dim>"
    assert (again.data.feature_dim, again.predictor_type) == (None, "regressor")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"S3Uri": "s3://b/p/test.protobuf", "S3DataType": "S3Prefix"},
         "aws s3 cp --recursive s3://b/p/ data/test --exclude '*' --include 'test.protobuf*'"),
        ({"S3Uri": "s3://b/p/test/"}, "aws s3 cp --recursive s3://b/p/test/ data/test\n"),
        ({"S3Uri": "s3://b"}, "aws s3 cp --recursive s3://b data/test\n"),
        ({"S3Uri": "s3://b/a b[1]"}, "aws s3 cp --recursive s3://b/ data/test --exclude '*' --include 'a b[[]1]*'\n"),
        ({"S3Uri": "s3://b/fm/.amazon.manifest", "S3DataType": "ManifestFile"},
         "aws s3 cp s3://b/fm/.amazon.manifest - | jq -r '.[0].prefix as $p | .[1:][] | $p + ., \"data/test/\" + .' | "
         "xargs -n 2 aws s3 cp\n"),
    ],
)  # fmt: skip
def test_a_channels_files_can_be_downloaded(source, words):
    """By the AWS CLI's own rules: a prefix that is no folder, and the objects of a manifest."""
    entries = [{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/t/"}}},
               {"ChannelName": "test", "DataSource": {"S3DataSource": source}}]  # fmt: skip
    _, text, said = noted(changed("TrainingJobDefinition", "InputDataConfig", value=entries))
    assert f"# test: {words}" in text
    assert said == []


def test_what_a_channel_says_beside_its_place_is_said():
    """Compression, the order of objects, frames, and a place that is not on S3."""
    entries = [
        {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/t/"}}, "CompressionType": "Gzip",
         "ShuffleConfig": {"Seed": 1}, "RecordWrapperType": "RecordIO", "InputMode": "Pipe"},
        {"ChannelName": "test", "DataSource": {"FileSystemDataSource": {"DirectoryPath": "/x"}},
         "CompressionType": "None", "RecordWrapperType": "None"},
    ]  # fmt: skip
    _, text, said = noted(changed("TrainingJobDefinition", "InputDataConfig", value=entries))
    assert [words.split(":")[1].split()[0] for words in said] == [
        "CompressionType", "ShuffleConfig", "RecordWrapperType", "put",
    ]  # fmt: skip
    assert "# train: InputMode Pipe: files are read here" in text


def test_a_range_of_one_value_counts_more_than_a_static_one():
    """As a range of several does; both are said."""
    job = ranges("IntegerParameterRanges", {"Name": "mini_batch_size", "MinValue": "100", "MaxValue": "100"})
    spec, _, said = noted(changed_static(job, mini_batch_size="200"))
    assert spec.hyperparameters["mini_batch_size"] == 100
    assert said == ["mini_batch_size: static (200) and in a range of one value, which counts"]


def test_studies_that_make_no_job():
    """An objective that SageMaker does not tune for, nothing of its own to search, a grid of ranges."""
    for old, new, said in (
        ("test:rmse", "test:mse", "test:rmse ranks as test:mse does"),
        (STUDY[STUDY.index("search_space:"):STUDY.index("sampler:")],
         "search_space: {lazy: [true, false]}\n", "nothing that is searched"),
        (STUDY[STUDY.index("search_space:"):STUDY.index("n_trials:")],
         "search_space: {epochs: 1..64, linear_lr: [0.1, 0.2]}\nsampler: grid\n", "lists of choices only"),
    ):  # fmt: skip
        text = STUDY.replace(old, new).replace("enqueue: [{epochs: 2}]\n", "").replace("optimizer: adagrad, ", "")
        with warnings.catch_warnings(), pytest.raises(UsageError, match=said):
            warnings.simplefilter("ignore")
            job_of(parse(text))


def test_the_verb_prints_json(tmp_path):
    """For aws sagemaker create-hyper-parameter-tuning-job --cli-input-json."""
    (tmp_path / "study.yaml").write_text(noted(JOB)[1].replace("num_factors: [16, 64]", "bias_lr: 0.1..1"))
    assert json.loads(export_tuning_job(tmp_path / "study.yaml"))["HyperParameterTuningJobName"] == "fm-movielens-1"


SHAPES = {
    "the tuning job is not an object": [],
    "HyperParameterTuningJobConfig is not an object": changed("HyperParameterTuningJobConfig", value="x"),
    "HyperParameterTuningJobConfig.ResourceLimits is not an object": config("ResourceLimits", [1]),
    "TrainingJobDefinitions is not a list": changed("TrainingJobDefinitions", value={}),
    "TrainingJobDefinitions[1] is not an object": changed("TrainingJobDefinitions", value=[{}, 7]),
    "TrainingJobDefinition.InputDataConfig[0].DataSource is not an object": changed(
        "TrainingJobDefinition", "InputDataConfig", value=[{"ChannelName": "train", "DataSource": 7}]
    ),
    "HyperParameterTuningJobConfig.ParameterRanges.CategoricalParameterRanges[0].Values is not a list": ranges(
        "ContinuousParameterRanges"
    ) | config("ParameterRanges", {"CategoricalParameterRanges": [{"Name": "num_factors", "Values": 16}]}),
    "WarmStartConfig.ParentHyperParameterTuningJobs is not a list": changed(
        "WarmStartConfig", value={"ParentHyperParameterTuningJobs": "x"}
    ),
}


@pytest.mark.parametrize("said", SHAPES)
def test_a_part_of_another_shape_is_named(said, tmp_path):
    """By its path, before any part is looked into; exit code 2."""
    file = dump(tmp_path / "job.json", SHAPES[said])
    for read_job, where in ((study_of, ""), (parents, ""), (lambda _: import_tuning_job(file), f"{file}: ")):
        with pytest.raises(UsageError) as error:
            read_job(SHAPES[said])
        assert str(error.value) == f"{where}{said}\n  hint: give the JSON of CreateHyperParameterTuningJob"
        assert error.value.exit_code == 2


def test_ranges_of_unknown_parameters_are_said_and_left_out():
    """Of every kind of range."""
    job = config("ParameterRanges", {
        "ContinuousParameterRanges": [continuous("alpha"), continuous("factors_lr")],
        "CategoricalParameterRanges": [{"Name": "beta", "Values": ["a"]}, *FACTORS],
        "AutoParameters": [{"Name": "gamma", "ValueHint": "1"}, {"Name": "eps", "ValueHint": "1"}],
    })  # fmt: skip
    spec, _, said = noted(job)
    assert set(spec.search_space) == {"factors_lr", "num_factors"}
    assert [words.split(":")[0] for words in said] == ["alpha", "beta", "gamma", "eps"]


def test_settings_of_the_container_have_their_counterparts():
    """Without compatibility the rows are shuffled; a default that says nothing is left out, and channels but two."""
    spec, _, said = noted(changed("TrainingJobDefinition", "StaticHyperParameters", value={
        "sagemaker_compat": "false", "eval_metrics": "x", "_optimizer": "sgd", "_num_gpus": "auto",
    }))  # fmt: skip
    assert "shuffle" not in spec.hyperparameters and "pad_last_batch" not in spec.hyperparameters
    assert "eval_metrics: x has no counterpart and is left out" in said
    entry = {"ChannelName": "validation", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/v"}}}
    _, _, said = noted(changed("TrainingJobDefinition", "InputDataConfig", value=[entry]))
    assert "the channel 'validation' (s3://b/v) is left out: there are train and test" in said
    assert "sagemaker_compat" not in noted(changed("TrainingJobDefinition", "StaticHyperParameters", value={
        "sagemaker_compat": "true"}))[1]  # fmt: skip


def test_limits_and_seeds_are_taken_over():
    """What a job leaves out has a default, and that is said; criteria but the limits have no counterpart."""
    job = config("ResourceLimits", {})
    job["HyperParameterTuningJobConfig"] |= {
        "RandomSeed": 7,
        "TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 0.5, "ConvergenceDetected": None},
    }  # fmt: skip
    spec, _, said = noted(job)
    assert (spec.n_trials, spec.seed, spec.pack, spec.timeout) == (100, 7, "auto", None)
    assert said == [
        "the job has no MaxNumberOfTrainingJobs: n_trials is 100",
        "TargetObjectiveMetricValue 0.5: a study ends by n_trials or timeout only",
    ]
    spec, _, _ = noted(config("ResourceLimits", {"MaxNumberOfTrainingJobs": 3, "MaxRuntimeInSeconds": 60}))
    assert (spec.n_trials, spec.timeout) == (3, 60.0)


def test_a_warm_start_of_what_never_ran_is_said():
    """Nothing is tried first; the study is named."""
    warm = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "zero"}], "WarmStartType": "x"}
    spec, _, said = noted(changed("WarmStartConfig", value=warm), parents={"zero": [{"alpha": 1}]})
    assert spec.enqueue == ()
    assert said == [
        "warm start from zero: no finished trial of it fits; run its study here first, or give its training jobs by "
        "--results"
    ]


@pytest.mark.parametrize(("direction", "order"), [("minimize", [0.1, 0.2, 0.3]), ("maximize", [0.3, 0.2, 0.1])])
def test_parents_give_their_complete_trials_best_first(direction, order, tmp_path):
    """From the studies below ``runs``; one that is not there is left out."""
    warm = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": name} for name in ("one", "none")]}
    (tmp_path / "runs" / "one").mkdir(parents=True)
    store = Store(open_storage(sqlite_url(tmp_path / "runs" / "one")), "one", direction)
    store.set_attrs({"fmtune:direction": direction, "fmtune:cells": [{"device": "cpu", "layout": "sparse"}]})
    space = {"factors_lr": FloatDistribution(0.0, 1.0)}
    for n, value in enumerate([0.2, 0.1, 0.3, None]):
        store.claim(set(), lambda workers, n=n: New(n, {"factors_lr": n / 10}, space, {}, {}))
        store.finish(n, "FAIL" if value is None else "COMPLETE", value, [], {}, {})
    found = parents(changed("WarmStartConfig", value=warm), tmp_path)
    rates = {0.2: 0.0, 0.1: 0.1, 0.3: 0.2}
    assert found == {"one": [{"factors_lr": rates[value]} for value in order]}


def test_a_whole_job_becomes_this_text():
    """Every part of a job, whether it has a counterpart or not: the study file word for word, notes included."""
    specimens = Path(__file__).parent / "specimens"
    found = {"one": [{"num_factors": 16, "epochs": 3, "x": 1}, {"num_factors": 17}]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = study_of(json.loads((specimens / "tuning_job.json").read_text()), parents=found)
    assert text == (specimens / "tuning_job.yaml").read_text()
    assert len(caught) == 18
