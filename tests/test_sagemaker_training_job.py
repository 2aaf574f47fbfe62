"""fmtune.sagemaker.training_job: a training job as a study around it, and a study's best as a training job."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fmtune.data import source
from fmtune.errors import UsageError
from fmtune.sagemaker.dialect import DialectWarning
from fmtune.sagemaker.training_job import best_of, study_around
from fmtune.sagemaker.tuning_export import static_of
from fmtune.sagemaker.verbs import import_training_job
from fmtune.tune import study as studies
from fmtune.tune.spec import parse, read
from tests.fm_reference import compiled
from tests.study_fixtures import write_data
from tests.test_sagemaker_training import job, run
from tests.test_sagemaker_tuning_job import dump

JOB: dict[str, Any] = {
    "TrainingJobName": "fm-1", "RoleArn": "arn", "ResourceConfig": {"InstanceCount": 1},
    "AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "File"},
    "HyperParameters": {
        "feature_dim": "40", "num_factors": "4", "predictor_type": "binary_classifier", "factors_lr": "0.01",
        "linear_wd": "0", "epochs": "2",
    },
    "InputDataConfig": [
        {"ChannelName": name, "DataSource": {"S3DataSource": {"S3Uri": f"s3://b/{name}/"}}}
        for name in ("train", "test")
    ],
}  # fmt: skip


def test_a_training_job_becomes_a_study_around_it():
    """Rates and decays are searched from a hundredth to a hundred times its own, which are tried first; 0 stays."""
    text = study_around(JOB)
    spec = parse(text)
    assert {name: str(d) for name, d in spec.search_space.items()} == {
        "bias_lr": "0.001..10 log", "linear_lr": "1e-05..0.1 log", "factors_lr": "0.0001..1 log",
        "bias_wd": "0.0001..1 log", "factors_wd": "1e-07..0.001 log",
    }  # fmt: skip
    assert spec.enqueue == (
        {"bias_lr": 0.1, "linear_lr": 0.001, "factors_lr": 0.01, "bias_wd": 0.01, "factors_wd": 1e-5},
    )
    assert (spec.objective, spec.study_name, spec.data.feature_dim) == (
        "test:binary_classification_cross_entropy", "fm-1", 40,
    )  # fmt: skip
    assert (spec.hyperparameters["num_factors"], spec.hyperparameters["linear_wd"]) == (4, 0.0)
    assert "# test: aws s3 cp --recursive s3://b/test/ data/test" in text


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({}, "HyperParameters is missing"),
        ([], "the tuning job is not an object"),
        ({"HyperParameters": {"feature_dim": "3"}}, "No value(s) were specified for 'num_factors'"),
    ],
)
def test_what_is_no_training_job_is_refused(job, said, tmp_path):
    """With its file."""
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        import_training_job(dump(tmp_path / "job.json", job))
    assert str(error.value.where).startswith(f"{tmp_path}/job.json")


@compiled
def test_the_best_trial_is_a_training_job_again(tmp_path):
    """There and back: a container that is given the printed hyperparameters reaches the best trial's score."""
    write_data(tmp_path, 200)
    train, test = (source.read_channel(tmp_path / f"{name}.npz", feature_dim=40) for name in ("train", "test"))
    text = import_training_job(dump(tmp_path / "job.json", JOB), data=".").replace("n_trials: 100", "n_trials: 3")
    text = text.replace("./train", "train.npz").replace("./test", "test.npz")
    (tmp_path / "study.yaml").write_text(text)
    spec = read(tmp_path / "study.yaml")
    result = studies.run(spec, root=tmp_path)
    printed = best_of(spec, root=tmp_path)
    root = job(tmp_path / "ml", train, test)
    (root / "input/config/hyperparameters.json").write_text(json.dumps(printed))
    code, log = run(root)
    (found,) = re.findall(r"test binary_classification_cross_entropy <loss>=(\S+)", log)
    assert code == 0
    assert float(found) == pytest.approx(result.best_value, rel=1e-5)
    assert set(printed) >= {"feature_dim", "num_factors", "predictor_type"}
    with pytest.raises(UsageError, match="trial 7 is not complete"):
        best_of(spec, 7, root=tmp_path)


@compiled
def test_a_trial_that_patience_ended_is_a_job_of_its_best_epoch(tmp_path):
    """SageMaker stops at no best epoch: the job has as many as the trial's model took."""
    write_data(tmp_path, 200)
    text = import_training_job(dump(tmp_path / "job.json", JOB), data=".").replace("n_trials: 100", "n_trials: 1")
    text = text.replace("./train", "train.npz").replace("./test", "test.npz")
    (tmp_path / "study.yaml").write_text(re.sub("epochs: .*", "epochs: 400\n  patience: 1", text))
    spec = read(tmp_path / "study.yaml")
    trial = studies.run(spec, root=tmp_path).best_trial
    assert trial.user_attrs["best_epoch"] < len(trial.intermediate_values) < 400
    assert best_of(spec, root=tmp_path)["epochs"] == str(trial.user_attrs["best_epoch"])


def test_what_only_an_image_of_fmtunes_can_do_is_said_or_kept():
    """SageMaker's own has no optimizer but Adam, and takes the rows as they lie."""
    values = {"optimizer": "adagrad", "use_bias": False, "clip_gradient": None, "positive_weight": 2.0}
    with pytest.warns(DialectWarning) as caught:
        found = static_of(values, "regressor", 30, ours=False)
    assert found == {"feature_dim": "30", "predictor_type": "regressor", "use_bias": "false", "num_factors": "16"}
    names = [str(w.message).split(":")[0] for w in caught]
    assert names == ["positive_weight", "shuffle", "pad_last_batch", "optimizer"]
    with pytest.warns(DialectWarning, match="positive_weight") as caught:
        found = static_of(values, "regressor", 30, ours=True)
    assert (found["optimizer"], found["sagemaker_compat"], len(caught)) == ("adagrad", "false", 1)
