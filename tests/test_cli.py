"""The command line: every verb as a user types it, and every bad run in its one line and exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmtune import __version__
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from tests.processes import Limited
from tests.study_fixtures import STUDY, Said, command, said, write_study
from tests.study_fixtures import fmtune as real

DIGITS = Path(__file__).parents[1] / "studies" / "digits.yaml"
SMALL = STUDY.replace("n_trials: 24", "n_trials: 4").replace("epochs: 4", "epochs: 2")


Shell = Callable[..., Said]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A command line in this process: words to run in a folder, by default an empty one."""

    def run(*words: str | Path, folder: Path = tmp_path) -> Said:
        return said(folder, *words)

    return run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study that was run; ``out`` holds what the command printed."""
    folder = write_study(tmp_path_factory.mktemp("done"), SMALL).parent
    ran = real(folder, "run", "study.yaml", "--no-report")
    assert ran.returncode == 0 and ran.stderr == ""
    (folder / "out").write_text(ran.stdout)
    return folder


# The verbs.


def test_help_and_version_import_nothing_heavy() -> None:
    """``fmtune --help`` runs without numpy, numba, Optuna, pydantic or rich."""
    heavy = {"numpy", "numba", "optuna", "scipy", "pydantic", "rich", "sqlalchemy", "pandas", "matplotlib"}
    code = (
        "import sys; from fmtune.__main__ import _code; c = _code(['--help']) + _code(['run', '--help']);"
        f"print(c, sorted({heavy!r} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.splitlines()[-1] == "0 []" and "Tune and benchmark" in ran.stdout


def test_a_run_ends_with_its_model_and_best_score(done: Path) -> None:
    """A run in a pipe prints the study, a line a trial and cell, then the winner; the last line is the best score."""
    lines = (done / "out").read_text().splitlines()
    assert lines[0].startswith("small: 4 trials in each of cpu-sparse, cpu-dense; 4 lanes, 2 threads; begins sqlite:///")
    assert sum(line.startswith("cpu-sparse trial") for line in lines) == 4
    assert sum(line.startswith("cpu-dense trial") for line in lines) == 4
    assert any(line.startswith("sealed holdout: ") and line.endswith("(opened once)") for line in lines)
    assert "model: runs/small/model.fm" in lines and not any(line.startswith("the study is complete") for line in lines)
    assert lines[-1].startswith("best test:binary_classification_cross_entropy: 0.")


def test_a_complete_study_says_so_and_keeps_its_report(done: Path, shell: Shell) -> None:
    """Run again, a complete study trains nothing; a report that is newer than its end is kept as it is."""
    first = shell("run", "study.yaml", folder=done)
    page = done / "reports" / "small.html"
    page.write_text("kept")
    again = shell("run", "study.yaml", folder=done)
    assert first == again and again.code == 0 and again.err == ""
    assert "the study is complete: 4 trials in each of cpu-sparse, cpu-dense" in again.lines
    place = (done / "runs" / "small" / "study.db").resolve()
    assert again.lines[0].endswith(f"; goes on with sqlite:///{place}")
    assert shell("status", "study.yaml", folder=done).lines[0] == f"small: sqlite:///{place}"
    assert not any(" trial " in line and line.startswith("cpu") for line in again.lines)
    assert again.lines[-2] == "report: reports/small.html" and page.read_text() == "kept"
    os.utime(page, (0, 0))
    shell("run", "study.yaml", folder=done)
    assert page.read_text() != "kept"
    assert shell("report", "study.yaml", "-o", "other.html", folder=done) == (0, "other.html\n", "")


def test_more_trials_than_the_file_asks_for_are_no_part_of_them(done: Path, shell: Shell, tmp_path: Path) -> None:
    """Where ``n_trials`` was lowered, a run's end and status say how many there are and how many are asked for."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    (tmp_path / "study.yaml").write_text(SMALL.replace("n_trials: 4", "n_trials: 3"))
    again, said = shell("run", "study.yaml", "--no-report"), shell("status", "study.yaml")
    asked = "; the file asks for 3 trials"
    assert again.lines[0].startswith(f"small: 4 trials in each of cpu-sparse, cpu-dense{asked}; 4 lanes, 2 threads; ")
    assert again.lines[1] == f"the study is complete: 4 trials in each of cpu-sparse, cpu-dense{asked}"
    assert [line.startswith("cpu-") and line.endswith(asked) for line in said.lines[1:3]] == [True, True]
    assert said.lines[1].startswith("cpu-sparse: 4 trials done (")


def test_json_events_are_json(shell: Shell, tmp_path: Path) -> None:
    """``run --json`` prints one JSON object a line and nothing else, from the study to the end."""
    write_study(tmp_path, SMALL)
    said = shell("run", "study.yaml", "--json", "--no-report")
    events = [json.loads(line, parse_constant=pytest.fail) for line in said.lines]
    kinds = [event["event"] for event in events]
    assert said.code == 0 and kinds[0] == "study" and kinds[-1] == "end" and kinds.count("trial") == 8
    searched = [e for e in events if e["event"] == "trial" and e["cell"] == "cpu-sparse" and e["state"] == "COMPLETE"]
    assert events[-1]["best"] == min(e["value"] for e in searched)


def test_status_says_how_far_each_cell_is(done: Path, shell: Shell, tmp_path: Path) -> None:
    """Done of total by cell, by state; what is running and waiting; no study yet is exit 4 with what begins it."""
    said = shell("status", "study.yaml", folder=done)
    assert said.lines[1].startswith("cpu-sparse: 4 of 4 trials done (")
    assert said.lines[-1].startswith("best test:binary_classification_cross_entropy: 0.")
    facts = json.loads(shell("status", "study.yaml", "--json", folder=done).out)
    assert [(c["cell"], c["done"], c["of"]) for c in facts["cells"]] == [("cpu-sparse", 4, 4), ("cpu-dense", 4, 4)]
    write_study(tmp_path, SMALL)
    begun = Limited(command("run", "study.yaml"), cwd=tmp_path, stdout=subprocess.PIPE)
    assert begun.stdout is not None
    begun.stdout.readline()
    during = shell("status", "study.yaml")
    begun.kill()
    begun.communicate()
    assert during.code == 0 and " of 4 trials done" in during.lines[1]
    write_study(tmp_path, SMALL.replace("small", "other"))
    none = shell("status", "study.yaml")
    assert none.code == 4 and "there is no study 'other' yet\n  hint: `fmtune run study.yaml` begins it" in none.err
    (tmp_path / "my study.yaml").write_text((tmp_path / "study.yaml").read_text())
    assert "hint: `fmtune run 'my study.yaml'` begins it" in shell("status", "my study.yaml").err
    (tmp_path / "elsewhere").mkdir()
    away = shell("status", str(done / "study.yaml"), folder=tmp_path / "elsewhere")
    assert away.code == 4 and f"hint: one lies in {done}/runs: run the same command in {done}\n" in away.err


def test_best_is_a_section_of_a_study_file(done: Path, shell: Shell, tmp_path: Path) -> None:
    """What ``best`` prints is pasted into a study file, read, run, and gives the winner's score again."""
    said = shell("best", "study.yaml", folder=done)
    score = float(said.lines[0].rpartition(" ")[2])
    write_study(tmp_path)
    text = f"""\
study_name: again
data: {{train: train.npz, test: test.npz}}
objective: test:binary_classification_cross_entropy
{said.out}
search_space: {{clip_gradient: 1e20..1e21}}
n_trials: 1
"""
    (tmp_path / "again.yaml").write_text(text)
    spec = specs.read(tmp_path / "again.yaml")
    assert spec.hyperparameters["epochs"] == 2 and isinstance(spec.hyperparameters["factors_lr"], float)
    again = shell("run", "again.yaml", "--no-report")
    assert float(again.lines[-1].rpartition(" ")[2]) == pytest.approx(score, rel=1e-5)


def test_best_says_which_epoch_patience_found(shell: Shell, tmp_path: Path) -> None:
    """Who trains the winner on all rows at last has nothing to watch, and needs the number."""
    write_study(tmp_path, SMALL.replace("epochs: 2", "epochs: 6, patience: 1"))
    shell("run", "study.yaml", "--no-report")
    top = collect(specs.read(tmp_path / "study.yaml"), tmp_path).best
    assert top is not None
    said = shell("best", "study.yaml")
    assert said.lines[1].startswith(f"# its model is that of epoch {top.best_epoch}; train so many")


def test_best_of_another_trial(done: Path, shell: Shell) -> None:
    """The winner named is the winner; another complete trial has its own score; one that is not there is refused."""
    winner = shell("best", "study.yaml", folder=done)
    number = winner.lines[0].partition("trial ")[2].partition(":")[0]
    assert shell("best", "study.yaml", "--trial", number, folder=done).out == winner.out
    refused = shell("best", "study.yaml", "--trial", "999", folder=done)
    assert refused.code == 2 and "trial 999 is not complete" in refused.err


SWEEP = """\
study_name: sw
data: {card: planted-ratings, users: 30, items: 40}
sweep: {rows: [600, 700]}
objective: test:rmse
hyperparameters: {epochs: 2, mini_batch_size: 20}
search_space: {factors_lr: 1e-2..1 log}
n_trials: 2
"""


def test_every_verb_takes_a_sweep(shell: Shell, tmp_path: Path) -> None:
    """Each of its studies has its answer, under its name; a page of one is enough to replay its trials."""
    (tmp_path / "sw.yaml").write_text(SWEEP)
    names = ["sw.rows-600", "sw.rows-700"]
    none = shell("status", "sw.yaml")
    assert none.code == 4 and "there is no study 'sw.rows-600' yet" in none.err
    plan = shell("plan", "sw.yaml").out
    assert [plan.count(f"study {name}: ") for name in names] == [1, 1]
    assert "train: 540 rows" in plan and "train: 630 rows" in plan
    ran = shell("run", "sw.yaml")
    assert ran.code == 0, ran.err
    status = shell("status", "sw.yaml").lines
    assert [sum(line.startswith(f"{name}: sqlite://") for line in status) for name in names] == [1, 1]
    assert status.count("cpu-sparse: 2 of 2 trials done (2 complete)") == 2
    facts = [json.loads(line) for line in shell("status", "sw.yaml", "--json").lines]
    assert [one["study_name"] for one in facts] == names
    best = shell("best", "sw.yaml").out.split("---\n")
    assert [one.startswith(f"# {name}, trial ") for one, name in zip(best, names, strict=True)] == [True, True]
    sure = shell("confirm", "sw.yaml", "--finalists", "2", "--seeds", "2")
    assert sure.code == 0 and [line for line in sure.lines if line.startswith("sw.")] == [f"{name}:" for name in names]
    told = shell("confirm", "sw.yaml", "--finalists", "2", "--seeds", "2", "--json").lines
    assert [json.loads(line)["study_name"] for line in told] == names
    for name in names:
        again = shell("replay", f"reports/{name}.html#trial=1")
        assert again.code == 0 and again.out.startswith("trial 1 in cpu-sparse: identical"), again.err
    shown = shell("dashboard", "sw.yaml", "--no-browser")
    assert shown.code == 2 and "a dashboard shows one study, and a sweep is several" in shown.err


def test_a_sweep_whose_trials_all_fail_says_so(shell: Shell, tmp_path: Path) -> None:
    """The study that has no winner is named, with what to do."""
    (tmp_path / "sw.yaml").write_text(SWEEP.replace("1e-2..1 log", "1e37..1e38"))
    ran = shell("run", "sw.yaml")
    assert ran.code != 0 and "sw.rows-600: none of 2 trials succeeded: 2 diverged" in ran.err


def test_fit_and_predict(done: Path, shell: Shell) -> None:
    """``fit`` prints the test metrics and the model's path; ``predict`` writes by the suffix and says how much."""
    words = ["predictor_type=binary_classifier", "epochs=1e1", "num_factors=4", "clip_gradient=none", "use_linear=true"]
    params = [part for word in words for part in ("-p", word)]
    said = shell("fit", "train.npz", "--test", "test.npz", *params, "-o", "m.fm", folder=done)
    assert said.code == 0 and said.lines[0].startswith("test:binary_classification_cross_entropy: ")
    assert said.lines[-1] == "model: m.fm"
    metrics = [line.removeprefix("test:") for line in said.lines[:-1]]
    assert shell("predict", "m.fm", "test.npz", "-o", "p.csv", folder=done).lines == [*metrics, "200 rows: p.csv"]
    assert (done / "p.csv").read_text().startswith("score,predicted_label\n0.")


@pytest.mark.parametrize(("word", "message"), [
    ("num_factros=3", "-p num_factros=3: unknown parameter 'num_factros' (did you mean 'num_factors'?)"),
    ("num_factors", "-p num_factors: num_factors has no value\n  hint: write -p num_factors=VALUE"),
    ("num_factors=many", "-p num_factors=many: num_factors must be a whole number, not 'many'"),
    ("num_factors=-1", "-p num_factors=-1: num_factors must be at least 0, not -1\n  hint: num_factors: length of each "
     "feature's factor vector; 0 is a linear model"),
    ("factors_lr=nan", "-p factors_lr=nan: factors_lr must be a number, not nan"),
    ("optimizer=adm",
     "-p optimizer=adm: optimizer must be one of adam, adagrad, sgd, ftrl, rowwise_adagrad, not 'adm'"),
    ("use_bias=1", "-p use_bias=1: use_bias must be true or false, not '1'"),
])  # fmt: skip
def test_a_wrong_parameter_is_named(shell: Shell, word: str, message: str) -> None:
    """Each wrong ``-p`` is one line with the word itself, exit 2."""
    assert shell("fit", "x.npz", "-p", word, "-o", "m.fm") == (2, "", f"error: {message}\n")


def test_the_data_verbs(done: Path, shell: Shell) -> None:
    """Cards are listed with their keys; files are converted, checked and described, also as JSON."""
    assert "digits: Handwritten digits" in shell("data", "list").lines[0]
    assert {card["name"] for card in json.loads(shell("data", "list", "--json").out)} >= {"digits", "planted-clicks"}
    assert shell("data", "convert", "train.npz", "-o", "t.pbr", folder=done).code == 0
    for words in (["check"], ["stats"]):
        plain, facts = (shell("data", *words, "t.pbr", *more, folder=done) for more in ([], ["--json"]))
        assert "rows" in plain.lines[1] and "{" not in plain.out
        assert json.loads(facts.out)["rows"] == 600 and json.loads(facts.out)["files"][0]["format"] == "recordio"
    assert json.loads(shell("schema").out)["title"] == "fmtune study"
    assert "4 trials are done, 0 to go" in shell("plan", "study.yaml", folder=done).out


def test_a_card_is_got_from_a_copy_or_by_download(shell: Shell, tmp_path: Path) -> None:
    """A card that comes with fmtune is there already; a wrong copy is refused, with the next step."""
    assert "digits.csv.gz there" in shell("data", "get", "digits").out
    (tmp_path / "ml-100k.zip").write_bytes(b"x")
    wrong = shell("data", "get", "movielens-100k", "--from", "ml-100k.zip")
    assert wrong.code == 3 and "then: fmtune data get movielens-100k --from ml-100k.zip" in wrong.err


@pytest.mark.parametrize(("words", "code", "message"), [
    (["rum"], 2, "unknown verb 'rum' (did you mean 'run'?)"),
    (["data", "chekc"], 2, "unknown verb 'chekc' (did you mean 'check'?)"),
    (["run"], 2, "missing argument 'STUDY'\n  hint: see `fmtune run --help`"),
    (["run", "none.yaml"], 2, "none.yaml: "),
    (["plan", "study.yaml", "--failures", "nan"], 2,
     "--failures: a hundredth of an hour at least\n  hint: 0 is never"),
    (["plan", DIGITS, "--memory", "much"], 2,
     "--memory: memory must be an amount, not 'much'\n  hint: write 4GiB, 500MB, or a number of bytes"),
    (["run", DIGITS, "--memory", "4096"], 2, "--memory: memory must be at least 1MiB and below 8EiB, not 4096"),
    (["worker", DIGITS, "--memory", "-1"], 2, "--memory: memory must be an amount, not '-1'"),
    (["fit", "none.npz", "-o", "m.fm"], 3, "none.npz: no such file or folder"),
    (["predict", "none.fm", "x.npz", "-o", "p.csv"], 3, "none.fm: cannot be read"),
    (["data", "check", "none.npz"], 3, "none.npz: no such file or folder"),
])  # fmt: skip
def test_a_wrong_command_is_one_line(shell: Shell, words: list[str | Path], code: int, message: str) -> None:
    """Misspelt verbs, missing words and missing files: the place, what is wrong, a next step."""
    said = shell(*words)
    assert (said.code, said.out) == (code, "") and said.err.startswith("error: ") and message in said.err
    assert said.err.count("error: ") == 1


def test_without_a_verb_there_is_help(shell: Shell) -> None:
    """``fmtune`` and ``fmtune data`` print what there is; ``--version`` the version."""
    assert "Commands:" in shell().out and "convert" in shell("data").out
    assert shell("--version") == (0, f"fmtune {__version__}\n", "")


def test_each_fault_of_a_study_file_is_an_error_of_its_own(shell: Shell, tmp_path: Path) -> None:
    """Two faults are two ``error:`` lines, each with place, caret and hint."""
    (tmp_path / "study.yaml").write_text(SMALL.replace("bias_lr", "bais_lr").replace("n_trials: 4", 'n_trials: "4"'))
    said = shell("run", "study.yaml")
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.code == 2 and len(errors) == 2 and said.err.count("^") >= 2
    assert errors[0].startswith("error: study.yaml:4:") and "did you mean 'bias_lr'?" in errors[0]
    assert "error: study.yaml:13:11: n_trials must be a whole number" in errors[1]


def test_debug_prints_the_traceback(shell: Shell) -> None:
    """``--debug`` goes before or behind the verb."""
    for words in (["--debug", "run", "none.yaml"], ["run", "none.yaml", "--debug"]):
        said = shell(*words)
        assert said.code == 2 and said.err.startswith("Traceback") and "\nerror: none.yaml" in said.err


@pytest.mark.filterwarnings("default::fmtune.data.source.DataWarning")
def test_a_data_warning_is_one_line(shell: Shell, tmp_path: Path) -> None:
    """Labels -1 and 1 are read as 0 and 1, with one line on standard error."""
    (tmp_path / "t.libsvm").write_text("-1 1:1\n1 2:1\n")
    said = shell("fit", "t.libsvm", "-p", "predictor_type=binary_classifier", "-o", "m.fm")
    assert (said.code, said.err) == (0, "warning: train: all labels are -1 or +1; read as 0 and 1\n")


# Bad runs.


def test_a_share_of_a_table_is_tested_and_ids_are_kept(shell: Shell, tmp_path: Path) -> None:
    """`fit --test 0.2` divides a table; rows have no share to give; `predict --keep` writes ids, `-o -` prints."""
    lines = [f"r{n},u{n % 7},i{n % 5},{n % 7}" for n in range(60)]
    (tmp_path / "r.csv").write_text("\n".join(["id,user,item,y", *lines]) + "\n")
    columns = ("--label", "y", "--categorical", "user,item")
    said = shell("fit", "r.csv", *columns, "--test", "0.2", "-p", "num_factors=2", "-p", "linear_lr=0.1",
                 "-p", "bias_lr=0.5", "-p", "epochs=30", "-o", "m.fm", folder=tmp_path)  # fmt: skip
    assert said[0] == 0 and "test:rmse" in said[1]
    said = shell("predict", "m.fm", "r.csv", "--keep", "id", "-o", "-", folder=tmp_path)
    assert said[0] == 0 and said[1].startswith("id,score\nr0,") and said[1].count("\n") == 61
    (tmp_path / "r.libsvm").write_text("1 1:1\n0 2:1\n")
    said = shell("fit", "r.libsvm", "--test", "0.2", "-o", "m.fm", folder=tmp_path)
    assert said == (2, "", "error: --test 0.2: a share is taken from a table\n  hint: name its --label\n")


def test_diverged_trials_say_which_rates(shell: Shell, tmp_path: Path) -> None:
    """Where every trial diverges the exit is 6 and the ranges are named; the report is still written."""
    write_study(tmp_path, SMALL.replace("1e-3..0.5 log", "1e28..1e30 log").replace("bias_lr: 0.05", "bias_lr: 1e30"))
    said = shell("run", "study.yaml")
    assert said.code == 6 and "none of 4 trials succeeded: 4 diverged with" in said.err
    assert "linear_lr" in said.err and "factors_lr" in said.err and "hint: lower the learning rates" in said.err
    assert (tmp_path / "reports" / "small.html").exists()
    words = ("-p", "predictor_type=regressor", "-p", "factors_lr=1e30")
    one = shell("fit", "train.npz", "--test", "test.npz", *words, "-o", "m.fm")
    assert one.code == 6 and one.err.startswith("error: diverged at epoch 1\n") and not (tmp_path / "m.fm").exists()


def test_places_that_cannot_be_written(done: Path, shell: Shell, tmp_path: Path) -> None:
    """A file where the folder of runs, of reports or of a model should be: exit 5, and the file stays."""
    write_study(tmp_path, SMALL)
    (tmp_path / "runs").write_text("mine")
    said = shell("run", "study.yaml")
    assert said.code == 5 and "runs/small: the folder cannot be made: Not a directory" in said.err
    said = shell("fit", "train.npz", "-p", "predictor_type=regressor", "-o", "runs/m.fm")
    assert said.code == 5 and said.err.startswith("error: runs/m.fm: cannot be written: ")
    assert (tmp_path / "runs").read_text() == "mine"
    said = shell("report", "study.yaml", "-o", "study.yaml/page.html", folder=done)
    assert said.code == 5 and "study.yaml/page.html: cannot be written" in said.err


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """Where a file cannot grow further the write is refused with its size, the old file stays, no part is left."""
    (tmp_path / "m.fm").write_text("old")
    code = f"""
import resource
from pathlib import Path
from fmtune.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    atomic_write(Path({str(tmp_path / "m.fm")!r}), b"x" * 2_000_000)
except Exception as error:
    print(error.exit_code, error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.startswith("5 ") and "no space left on the disk (File too large); 2 MB are needed" in ran.stdout
    assert (tmp_path / "m.fm").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_study_on_a_full_disk_goes_on_later(done: Path, shell: Shell, tmp_path: Path) -> None:
    """With the database at the limit of a file's size a run exits 4 in one line, and the next one goes on."""
    write_study(tmp_path, SMALL)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (190_000, 190_000));"
        "from fmtune.__main__ import _code; sys.exit(_code(['run', 'study.yaml', '--no-report']))"
    )
    ran = subprocess.run([sys.executable, "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (
        4, "error: small: the study's database cannot be written: disk I/O error\n"
           "  hint: free the disk or the lock, then run the same command again: it continues\n"
    )  # fmt: skip
    assert shell("run", "study.yaml", "--no-report").lines[-1] == (done / "out").read_text().splitlines()[-1]


# Signals and pipes, through the real command.


def _heeding() -> None:
    """Take SIGHUP as a terminal's process does, also where these tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _interrupted(
    folder: Path, number: int, words: tuple[str, ...], ready: Callable[[subprocess.Popen[str]], Any]
) -> Said:
    """Start the command, wait until it is ready, send the signal, and return what it said."""
    run = Limited(command(*words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                  env={**os.environ, "PYTHONUNBUFFERED": "1"}, preexec_fn=_heeding)  # fmt: skip
    ready(run)
    run.send_signal(number)
    out, err = run.communicate(timeout=30)
    return Said(run.returncode, out, err)


def _imports(module: str) -> Callable[[subprocess.Popen[str]], None]:
    """Wait until the process has mapped a library of a package, so is in the middle of its imports."""

    def ready(run: subprocess.Popen[str]) -> None:
        while run.poll() is None and module not in Path(f"/proc/{run.pid}/maps").read_text():
            time.sleep(0.005)

    return ready


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_importing_is_one_line(tmp_path: Path, number: int, code: int) -> None:
    """Stopped in the middle of importing numpy, the command prints one line and a hint, no traceback."""
    write_study(tmp_path)
    said = _interrupted(tmp_path, number, ("run", "study.yaml"), _imports("numpy"))
    assert (said.code, said.out) == (code, "")
    assert said.err.splitlines() == [
        "stopped; finished trials are kept", "  hint: run the same command again: it goes on where it stopped",
    ]  # fmt: skip


def test_a_signal_while_a_kernel_is_compiled_stops_at_once(tmp_path: Path) -> None:
    """With an empty kernel cache compiling takes many seconds; a signal does not wait for it."""
    write_study(tmp_path)
    env = {"FMTUNE_CACHE_DIR": str(tmp_path / "cache")}
    run = Limited(command("run", "study.yaml"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                  env={**os.environ, **env})  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline().startswith("small: 24 trials")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 130 and err.startswith("stopped; ") and "hint: run the same command again" in err
    # Nothing was trained: the process did not wait for its kernels.
    assert " trial " not in out


@pytest.mark.parametrize(("make", "code"), [(os.pipe, 141), (os.openpty, 129)], ids=["pipe", "terminal"])
def test_a_reader_that_leaves_is_no_error(
    make: Callable[[], tuple[int, int]], code: int, tmp_path: Path, done: Path, shell: Shell
) -> None:
    """A run whose pipe or terminal is closed ends without a word; the next one completes the very same study."""
    write_study(tmp_path, SMALL)
    reader, writer = make()
    run = Limited(command("run", "study.yaml", "--no-report"), cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    assert (run.communicate()[1], run.returncode) == ("", code)
    again = shell("run", "study.yaml", "--no-report")
    assert again.code == 0
    assert again.lines[-1] == (done / "out").read_text().splitlines()[-1]


def test_without_any_standard_stream_the_code_still_counts(done: Path) -> None:
    """What is then opened takes their numbers, and none of our words gets into it."""
    words = " ".join(command("status", "none.yaml"))
    ran = subprocess.run(["/bin/sh", "-c", f"exec {words} <&- >&- 2>&-"], cwd=done, check=False, timeout=120)
    assert ran.returncode == 2
