"""fmtune.sagemaker.warm_start: configurations that AWS tried, first in a study."""

import csv
import warnings
from pathlib import Path

import pytest

from fmtune.errors import UsageError
from fmtune.sagemaker.tuning_job import study_of
from fmtune.sagemaker.verbs import import_tuning_job
from fmtune.sagemaker.warm_start import results_of
from fmtune.tune.spec import parse
from tests.test_sagemaker_tuning_job import JOB, dump

TRIED = [("0.5", "16", 0.93), ("0.1", "64", 0.91), ("0.2", "32", 0.1), ("0.3", "16", None)]


def summary(rate: str, factors: str, value: float | None) -> dict[str, object]:
    final = {} if value is None else {
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "test:rmse", "Value": value}}  # fmt: skip
    tuned = {"factors_lr": rate, "num_factors": factors}
    return {"TrainingJobName": f"job-{rate}", "TunedHyperParameters": tuned} | final


@pytest.fixture(params=["json", "csv"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What AWS's command prints, and the SDK's table, in which whole numbers have a point."""
    path = tmp_path / f"results.{request.param}"
    if request.param == "json":
        return dump(path, {"TrainingJobSummaries": [summary(*one) for one in TRIED]})
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["", "factors_lr", "num_factors", "TrainingJobName", "FinalObjectiveValue"])
        for n, (rate, factors, value) in enumerate(TRIED):
            table.writerow([n, rate, f"{factors}.0", "x", "" if value is None else value])
    return path


def test_what_aws_tried_is_tried_first(results: Path, tmp_path: Path) -> None:
    """The best first, by the objective; a job that failed, and one outside of the search space, are left out."""
    text = import_tuning_job(dump(tmp_path / "job.json", JOB), results=[results])
    assert parse(text).enqueue == ({"factors_lr": 0.1, "num_factors": 64}, {"factors_lr": 0.5, "num_factors": 16})
    assert f"# the best configurations of {results} are tried first; their scores are not taken over" in text


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    """With their file and how to get them."""
    for name, content in (("a.json", "{}"), ("b.csv", "x,y\n1,2\n"), ("c.json", "{"), ("d.json", '{"a": ')):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match="no results of a tuning job") as error:
            results_of(tmp_path / name)
        assert error.value.where == str(tmp_path / name)
        assert "list-training-jobs-for-hyper-parameter-tuning-job" in str(error.value.hint)
    with pytest.raises(UsageError, match="cannot be read"):
        results_of(tmp_path / "none")


def test_a_described_jobs_best_is_tried_first() -> None:
    """Both its own and that of its parents; one that does not fit is said."""
    tuned = {"factors_lr": "0.25", "epoch": "3", "num_factors": "16"}
    best = {"TrainingJobName": "fm-7", "TunedHyperParameters": tuned}
    worse = {"TrainingJobName": "fm-8", "TunedHyperParameters": {"factors_lr": "1e9"}}
    text = study_of({**JOB, "BestTrainingJob": best, "OverallBestTrainingJob": best})
    assert parse(text).enqueue == ({"factors_lr": 0.25, "num_factors": 16},)
    assert "# BestTrainingJob, fm-7, is tried first" in text
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert parse(study_of({**JOB, "BestTrainingJob": worse})).enqueue == ()
    assert [str(w.message) for w in caught] == [
        'BestTrainingJob does not fit the search space, and is not tried first: {"factors_lr": "1e9"}'
    ]
