"""fmtune.sagemaker.container: what a job is told of its data and hyperparameters, and what it leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fmtune.data import recordio
from fmtune.data.schema import Record
from fmtune.sagemaker.container import reason
from fmtune.sagemaker.hyperparameters import job_of
from tests.test_sagemaker_training import BASE, Pipes, job, rows, run


def warnings_of(log: str) -> list[str]:
    """Return the job's warnings, without what every job on one host says."""
    return [text for text in re.findall(r" WARNING \d+\] (.*)", log) if not text.startswith("wait_for_all_workers")]


def failure(root: Path) -> str:
    return (root / "output/failure").read_text()


def records_of(feature: str, label: str, count: int = 200) -> bytes:
    """Return records whose tensors are of these kinds."""
    made = []
    for i in range(count):
        record = Record()
        tensor = getattr(record.features["values"], feature)
        tensor.values.append(1)
        tensor.keys.append(i % 30)
        tensor.shape.append(30)
        getattr(record.label["values"], label).values.append(i % 2)
        made.append(recordio.frame(record.SerializeToString()))
    return b"".join(made)


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("float64_tensor", "float32_tensor"), "its records hold float64_tensor"),
        (("float32_tensor", "int32_tensor"), "its records hold int32_tensor"),
        (("float64_tensor", "int32_tensor"), "its records hold float64_tensor and int32_tensor"),
        (("float32_tensor", "float32_tensor"), None),
    ],
)
def test_tensors_that_fail_on_aws_are_said(
    kinds: tuple[str, str], said: str | None, pipe: bool, tmp_path: Path
) -> None:
    """They train here; SageMaker's own container takes float32 alone."""
    content = records_of(*kinds)
    root = job(tmp_path, None, None, {"train": {"TrainingInputMode": "Pipe"}} if pipe else None)
    if pipe:
        pipes = Pipes(root / "input/data", {"train_0": content})
    else:
        (root / "input/data/train").mkdir(parents=True)
        (root / "input/data/train/a.pbr").write_bytes(content)
    code, log = run(root)
    if pipe:
        pipes.thread.join(10)
    assert code == 0
    assert len(warnings_of(log)) == (said is not None)
    if said is not None:
        assert f"{said}; SageMaker's own container takes RecordIO with float32 tensors alone" in log


def test_a_format_that_fails_on_aws_is_said(tmp_path: Path) -> None:
    """libsvm under the content type of RecordIO trains here."""
    root = job(tmp_path, None, None, {"train": {"ContentType": "application/x-recordio-protobuf"}})
    (root / "input/data/train").mkdir(parents=True)
    (root / "input/data/train/a.svm").write_text("1 3:1 4:1\n0 1:1\n" * 100)
    code, log = run(root)
    assert code == 0
    assert any("a.svm: it holds libsvm; SageMaker's own container" in text for text in warnings_of(log))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("y,a\n1,2\n" * 20, "`fmtune data convert a.csv train.pbr --label COLUMN` makes it"),
        ("1 77:1\n" * 20, "check the channel's files, and feature_dim and predictor_type among the job's"),
    ],
)
def test_a_failure_speaks_of_a_job(content: str, said: str, tmp_path: Path) -> None:
    """There is no study in a container."""
    root = job(tmp_path, None)
    (root / "input/data/train").mkdir(parents=True)
    (root / "input/data/train/a.csv").write_text(content)
    assert run(root)[0] == 3
    assert said in failure(root) and "study" not in failure(root)


def test_labels_that_a_classifier_cannot_take_speak_of_a_job(tmp_path: Path) -> None:
    """And so does a channel that is named and not there."""
    root = job(tmp_path, rows(200), predictor_type="binary_classifier")
    assert run(root)[0] == 3
    assert "study" not in failure(root) and "predictor_type among the job's hyperparameters" in failure(root)
    root = job(tmp_path / "none", None, None, {"train": {}})
    assert run(root)[0] == 3
    assert "the channel's folder is not there" in failure(root) and "study" not in failure(root)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"factors_init_method": "constant"}, "only the linear model is trained"),
        ({"linear_init_method": "constant"}, "linear_init_value is not given: it is 0"),
        ({"factors_init_method": "uniform"}, "factors_init_scale is not given: it is 0.001"),
        ({"_num_gpus": "1"}, "_num_gpus is 1, and training is on the processor"),
        ({"factors_init_method": "uniform", "factors_init_scale": "0.1", "_num_gpus": "0"}, None),
    ],
)
def test_what_a_job_may_not_mean_is_said(given: dict[str, str], said: str | None) -> None:
    """SageMaker has no default for these numbers, and no job has a card here."""
    found = list(job_of({**BASE, **given}).doubts())
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_doubts_are_in_the_log(tmp_path: Path) -> None:
    """As warnings, before the training."""
    _, log = run(job(tmp_path, rows(200), factors_init_method="constant"))
    assert any("factors_init_value is not given" in text for text in warnings_of(log))
    assert log.index("factors_init_value is not given") < log.index("Building a sparse network")


def test_a_success_leaves_no_failure(tmp_path: Path) -> None:
    """That of the job before is taken away."""
    root = job(tmp_path, rows(200))
    (root / "output").mkdir()
    (root / "output/failure").write_text("ClientError: old")
    assert run(root)[0] == 0
    assert not (root / "output/failure").exists()


def test_a_mistyped_root_is_not_made(tmp_path: Path) -> None:
    """The error names it."""
    code, log = run(tmp_path / "ml/typo")
    assert code == 2
    assert "there is no such folder" in log and str(tmp_path / "ml/typo") in log
    assert not (tmp_path / "ml").exists()


def test_a_model_that_no_memory_holds_says_what_it_takes(tmp_path: Path) -> None:
    """And one whose features cannot be numbered is refused before."""
    assert "a model takes 12 * (num_factors + 1) bytes" in reason(MemoryError())
    root = job(tmp_path, rows(200), feature_dim="10000000000")
    assert run(root)[0] == 2
    assert "feature_dim 10000000000 is beyond the 2147483647 features that can be numbered" in failure(root)
