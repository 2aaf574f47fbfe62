"""Bad inputs: each one that docs/trust.md speaks of, with the exact words and the exit code that it ends in.

A row is tried in the folder of a finished study: whatever the row does, the study's trials, its model and every
other file are afterwards as they were before.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import os
import pickle
import re
import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmtune import cli
from fmtune.data.index import write_index
from tests.study_fixtures import STUDY, said, write_data, write_study
from tests.study_fixtures import fmtune as real
from tests.test_recordio import raw, records

SMALL = STUDY.replace("n_trials: 24", "n_trials: 4").replace("epochs: 4", "epochs: 2")
OTHER = SMALL.replace("study_name: small", "study_name: other")

Content = str | bytes | Callable[[Path], Any]
"""What is written to a file; or what is done to it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study that was run."""
    folder = write_study(tmp_path_factory.mktemp("finished"), SMALL).parent
    assert real(folder, "run", "study.yaml", "--no-report").returncode == 0
    return folder


Try = Callable[[str, Content, str], tuple[int, str]]


@pytest.fixture
def attempt(finished: Path, tmp_path: Path) -> Try:
    """Put one file into a copy of the finished study, and type a command there; returns its code and its error."""

    def run(name: str, content: Content, words: str) -> tuple[int, str]:
        shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
        if callable(content):
            content(tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        before = _files(tmp_path)
        code, _, error = said(tmp_path, *words.split())
        assert _files(tmp_path) == before
        return code, error.replace(str(tmp_path), "HERE").removeprefix("error: ")

    return run


def _files(folder: Path) -> dict[str, Any]:
    """Return every file's content, of a sound database its trials; but not what belongs to a study named other."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_dir() or re.match(r"runs/(other/|\..*\.lock)|.*-(wal|shm)$", name):
            continue
        with contextlib.suppress(PermissionError):
            found[name] = path.read_bytes()
        if path.suffix == ".db":
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
                found[name] = [connection.execute(f"SELECT * FROM {t}").fetchall() for t in ("trials", "trial_values")]
    return found


# What stands in the study file, and what `fmtune run` says of it: exit code 2.

NAME = "  hint: the name is a folder's: letters, digits, '.', '_' and '-', with a letter or digit first\n"
WHICH = "  hint: name a study file; `fmtune init DATA` writes one\n"
SHORTER = "  hint: a study file is small; shorten it, or name another file\n"
ANEW = "  hint: give it a new study_name, or start anew with `fmtune run --fresh`; its finished trials are kept\n"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

STUDY_FILES: dict[str, tuple[Content, str]] = {
    "missing": (Path.unlink, ": no such file\n" + WHICH),
    "a tab": (SMALL.replace("  num_factors", "\tnum_factors"),
        ":6:1: a tab stands where YAML wants spaces\n   6 | →num_factors: 1..12\n     | ^\n"
        "  hint: indent with spaces\n"),
    "an unclosed bracket": (SMALL + "enqueue: [1",
        ":17:10: the bracket '[' is never closed\n  17 | enqueue: [1\n     |          ^\n"
        "  hint: put a ']' behind it\n"),
    "an unclosed bracket at the end": (SMALL + "enqueue: [",
        ":17:11: the file ends where a value should stand\n  17 | enqueue: [\n     |           ^\n"
        "  hint: close the bracket that is open\n"),
    "a repeated key": (SMALL + "study_name: b\n",
        ":17:1: the key 'study_name' is here a second time; the first is in line 1\n"
        "  17 | study_name: b\n     | ^^^^^^^^^^\n  hint: take one of them out\n"),
    "an unknown key": (SMALL.replace("n_trials: 4", "n_trails: 4"),
        ":13:1: unknown key 'n_trails' (did you mean 'n_trials'?)\n  13 | n_trails: 4\n     | ^^^^^^^^\n"),
    "a number in quotes": (SMALL.replace("n_trials: 4", "n_trials: '4'"),
        ":13:11: n_trials must be a whole number, not '4'\n"
        "  13 | n_trials: '4'\n     |           ^^^\n  hint: remove the quotes\n"),
    "low above high": (SMALL.replace("1..12", "12..1"),
        ":6:16: low 12 of num_factors is not below high 1\n"
        "   6 |   num_factors: 12..1\n     |                ^^^^^\n  hint: swap the two\n"),
    "low and high the same": (SMALL.replace("1..12", "12..12"),
        ":6:16: low 12 of num_factors is not below high 12\n   6 |   num_factors: 12..12\n"
        "     |                ^^^^^^\n  hint: to fix num_factors at 12, put it under hyperparameters\n"),
    "a log range from 0": (SMALL.replace("1e-2..0.3 log", "0..0.3 log"),
        ":10:23: a log range starts above 0; low of factors_init_sigma is 0\n"
        "  10 |   factors_init_sigma: 0..0.3 log\n     |                       ^^^^^^^^^^\n"
        "  hint: give a small low, such as 1e-6\n"),
    "deep nesting": (SMALL + "enqueue: " + "[" * 100_000,
        f":17:70: nested more than 20 levels deep\n  17 | {'[' * 100}\n     | {' ' * 60}^\n" + SHORTER),
    "an alias bomb": (BOMB,
        ":1:4: anchors (&) and aliases (*) are not used in a study file\n   1 | a: &a [x, x]\n     |    ^^^^\n"
        "  hint: write the value out, or put it in quotes if it is text\n"),
    "50 MB": (lambda path: os.truncate(path, 50_000_000), ": is 50.0 MB; a study file has at most 1 MB\n" + WHICH),
    "NUL": (SMALL + "\0",
        ":17:1: a NUL character is in the text\n  17 | ?\n     | ^\n  hint: a study file is plain UTF-8 text\n"),
    "UTF-16": (SMALL.encode("utf-16"), ":1:1: is UTF-16 text, or not text at all\n  hint: save it as UTF-8\n"),
    "markup as name": (SMALL.replace("study_name: small", "study_name: </script>"),
        ":1:13: study_name cannot be '</script>'\n   1 | study_name: </script>\n     |             ^^^^^^^^^\n" + NAME),
    "a path as name": (SMALL.replace("study_name: small", "study_name: ../../x"),
        ":1:13: study_name cannot be '../../x'\n   1 | study_name: ../../x\n     |             ^^^^^^^\n" + NAME),
    "a name of 10 kB": (SMALL.replace("study_name: small", "study_name: " + "x" * 10_000),
        f":1:13: study_name has 10000 characters; 100 is the most\n   1 | study_name: {'x' * 88}\n"
        f"     |             {'^' * 60}\n  hint: choose a shorter one\n"),
    "another space than the study's": (SMALL.replace("1..12", "1..16"),
        ": study 'small' was begun with another setting:\n  search_space.num_factors.high: 12 -> 16\n" + ANEW),
    "another direction than the study's": (SMALL.replace("binary_classification_cross_entropy", "auc"),
        ": study 'small' was begun with another setting:\n"
        "  objective: test:binary_classification_cross_entropy -> test:auc\n" + ANEW),
    "no test channel": (SMALL.replace(", test: test.npz", ""),
        ":2:1: the objective needs a test channel, and data has none\n"
        "   2 | data: {train: train.npz, holdout: holdout.npz}\n     | ^^^^\n  hint: write test: PATH\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDY_FILES)
def test_a_bad_study_file_is_refused(name: str, attempt: Try) -> None:
    """With the place, the line and a caret under it, and what to do."""
    content, error = STUDY_FILES[name]
    assert attempt("study.yaml", content, "run study.yaml") == (2, f"study.yaml{error}")


# What stands in a data file, and what `fmtune fit` says of it: exit code 3.

GOOD = records([1.0], keys=[2], shape=[9])
N = len(GOOD)
FORMATS = (
    "  hint: the formats are recordio, libsvm, npz, parquet, arrow, jsonl, csv; convert it, or name another file\n"
)
TORN = "  hint: the file is cut short: copy or download it again\n"
DAMAGED = "  hint: the file is damaged or was not written as RecordIO: write it again\n"
REWRITE = "  hint: write the record again with the schema aialgs.data.Record\n"
FINITE = "  hint: values and labels must be finite float32 numbers: replace or drop such rows before writing the file\n"
UNLIKE = ": not a data file that can be read: it looks like "
SECOND = f": record 2, byte {N}"


def _flipped(path: Path) -> None:
    path.write_bytes(GOOD)
    write_index(path)
    path.write_bytes(GOOD[:30] + bytes([GOOD[30] ^ 1]) + GOOD[31:])


DATA: dict[str, tuple[Content, str]] = {
    "missing": (lambda path: None, ": no such file or folder\n"
        "  hint: check the path; paths in a study are relative to its file\n"),
    "empty": (b"", ": the file is empty\n  hint: a channel needs at least one record\n"),
    "csv": ("a,b\n1,2\n", ": a table (csv), and no columns are named as label and features\n  hint: say which is the "
        "label: `label: COLUMN` below data: in a study, --label COLUMN for a verb, label= in Python; "
        "the columns are a, b\n"),
    "csv without names": ("1,2,3\n4,5,6\n",
        ": the first line holds numbers and no names\n  hint: put a first line with 3 names before it\n"),
    "gzip": (gzip.compress(GOOD), UNLIKE + "a gzip file with RecordIO inside; unpack it first\n" + FORMATS),
    "html": ("<!doctype html><p>404", UNLIKE + "an HTML page\n" + FORMATS),
    "a pickle": (pickle.dumps({"x": 1}), UNLIKE + "a pickle, which is never loaded\n" + FORMATS),
    "cut in a header": (GOOD + GOOD[:6], SECOND + ": the file ends in a record's header\n" + TORN),
    "cut in a body": (GOOD + GOOD[:20],
        SECOND + f": the record claims {N - 10} bytes, more than are left in the file\n" + TORN),
    "cut in the padding": (GOOD + GOOD[:-1], SECOND + ": the file ends in a record's padding\n" + TORN),
    "a length beyond the file": (raw(1 << 24),
        ": record 1, byte 0: the record claims 16777216 bytes, more than are left in the file\n" + TORN),
    "a length beyond 16 MiB": (raw((1 << 24) + 1),
        ": record 1, byte 0: the record claims 16777217 bytes, more than the 16 MiB that one may have\n" + DAMAGED),
    "a part without the last": (GOOD + raw(4, b"abcd", 1), f": record 2, byte {N + 12}: "
        "the parts of a record do not follow each other as first, middle, last\n" + DAMAGED),
    "garbage": (GOOD + raw(4, b"\x0a\x7fab"),
        f": record 2, byte {N + 8}: the bytes are not a protobuf record\n" + DAMAGED),
    "keys and values of different length": (GOOD + records([1.0, 2.0], keys=[1]),
        SECOND + ": the features have keys and values of different length\n" + REWRITE),
    "NaN as a feature": (GOOD + records([1.0, float("nan")], keys=[1, 4]),
        SECOND + ": the value of feature 4 is nan\n" + FINITE),
    "inf as a label": (GOOD + records([1.0], float("inf"), keys=[1]), SECOND + ": the label is inf\n" + FINITE),
    "a label missing": (GOOD + records([1.0], None, keys=[1]), SECOND + ": the record has no label, though records "
        "before it have one\n  hint: give every record a label, or none\n"),
    "a flipped bit of an indexed file": (_flipped, f": bytes 0 to {N - 1}: the data changed since they were indexed\n"
        "  hint: restore the file; or, if the change is meant, run fmtune data index again\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_a_bad_data_file_is_refused(name: str, attempt: Try) -> None:
    """With what it looks like, or with the record and its first byte."""
    content, error = DATA[name]
    assert attempt("x.pbr", content, "fit x.pbr -o m.fm") == (3, f"x.pbr{error}")


# What is in the test channel of the study, or in train, and what a run of it says: exit code 3.

CHANNELS: dict[str, tuple[str, bytes, str]] = {
    "a key beyond feature_dim": ("test.npz", GOOD + records([1.0], keys=[40]),
        f"test.npz{SECOND}: key 40 is not below feature_dim 40\n  hint: the channels of a study share one numbering, "
        "and data to score have their model's: check that file, or give a larger feature_dim (in a study, below "
        "data:)\n"),
    "label 3 in a binary task": ("test.npz", GOOD + records([1.0], 3.0, keys=[1]),
        "test: label 3 of record 2: binary_classifier wants 0 or 1\n  hint: map the labels to 0 and 1, or learn the "
        "numbers: predictor_type regressor, in a study also test:rmse\n"),
    "no labels": ("test.npz", records([1.0], None, keys=[1]),
        "test (test.npz): the labels are missing\n  hint: a channel to learn or test on needs one label a row\n"),
    "other data than at the first trial": ("train.npz", GOOD + records([1.0], 0.0, keys=[39]),
        "study.yaml: study 'small' was begun with another setting:\n  the data of train changed since its first trial\n"
        + ANEW),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("verb", ["run", "confirm --again"])
def test_a_channel_that_does_not_fit_is_refused(name: str, verb: str, attempt: Try) -> None:
    """The stored study stays as it is."""
    file, content, error = CHANNELS[name]
    assert attempt(file, content, f"{verb} study.yaml") == (3, error)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("words", ["status study.yaml", "best study.yaml", "report --md study.yaml"])
def test_an_old_study_is_not_shown_as_the_file_s(words: str, attempt: Try) -> None:
    """One line says what it was begun with, what the file says now, and what to do; the study is shown all the same."""
    error = (
        "warning: study.yaml: study 'small' is shown as it was begun, and the file says otherwise: "
        "objective: test:binary_classification_cross_entropy -> test:auc; "
        "`fmtune run` refuses it: put that back, give it a new study_name, or start anew with --fresh\n"
    )
    text = SMALL.replace("test:binary_classification_cross_entropy", "test:auc")
    assert attempt("study.yaml", text, words) == (0, error)
    assert attempt("study.yaml", SMALL.replace("n_trials: 4", "n_trials: 9"), words) == (0, "")


def test_a_study_is_not_confirmed_as_another(finished: Path, attempt: Try) -> None:
    """Whose trials would be trained again with what they never had."""
    text = (finished / "study.yaml").read_text().replace("num_factors: 1..12", "num_factors: 1..16")
    error = ": study 'small' was begun with another setting:\n  search_space.num_factors.high: 12 -> 16\n" + ANEW
    assert attempt("study.yaml", text, "confirm --again study.yaml") == (2, f"study.yaml{error}")


# Data that are read, and what is said of them.

ODD: dict[str, tuple[bytes, str]] = {
    "keys unsorted and repeated": (GOOD + records([1, 2, 4, 8], keys=[5, 3, 5, 0], shape=[9]),
        "warning: x.pbr: 1 row has keys out of order or repeated; 1 repeated entry was summed\n"),
    "dense and sparse records": (records([1, 0, 2]) + records([3], keys=[2], shape=[3]),
        "warning: x.pbr: 1 dense and 1 sparse records are mixed; all were read as sparse\n"),
    "Float64 tensors": (records([0.1, 2.0], kind="float64_tensor"), ""),
    "Int32 tensors": (records([1, 2], kind="int32_tensor"), ""),
}  # fmt: skip


@pytest.mark.filterwarnings("default::fmtune.data.source.DataWarning")
@pytest.mark.parametrize("name", ODD)
def test_odd_data_are_converted(name: str, attempt: Try) -> None:
    """A warning says what was done where the rows are not what was written."""
    content, warning = ODD[name]
    assert attempt("x.pbr", content, "fit x.pbr -o runs/other/m.fm") == (0, warning)


# A model, and what is said of it: exit code 3.

IMPORT = "sagemaker import bad -o m.fm"
JOBS = "  hint: it should be the model.tar.gz of a factorization machine, as SageMaker wrote it\n"
UNKNOWN = "bad: not a fmtune model\n  hint: fmtune fit -o FILE writes one\n"
BROKEN = (
    "bad: the file is damaged: its digest does not fit its content\n"
    "  hint: copy it again from where it was made, or train it again\n"
)
PREDICT = "predict bad test.npz -o p.csv"
LINK = "bad: 'model_algo-1': a link, a device or another thing that is no plain file\n" + JOBS


def _model(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    """Return what writes the study's model with a change."""
    return lambda path: path.write_bytes(change((path.parent / "runs/small/model.fm").read_bytes()))


def _tar(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return gzip.compress(member.tobuf() + bytes(10_240))


MODELS: dict[str, tuple[Content, str, str]] = {
    "cut off": (_model(lambda content: content[:-3]), PREDICT, BROKEN),
    "a flipped bit": (_model(lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:]),
        PREDICT, BROKEN),
    "a pickle": (pickle.dumps({"bias": 1.0}), PREDICT, UNKNOWN),
    "a pickle to inspect": (pickle.dumps({"bias": 1.0}), "inspect bad", UNKNOWN),
    "a pickle to export": (pickle.dumps({"bias": 1.0}), "export numpy bad -o x.npz", UNKNOWN),
    "of another dimension": ("1 1:1\n0 4000:1\n", "predict runs/small/model.fm bad -o p.csv",
        "bad: line 2: key 4000 is not below feature_dim 41\n  hint: the channels of a study share one numbering, and "
        "data to score have their model's: check that file, or give a larger feature_dim (in a study, below data:)\n"),
    "a tar that leads out": (_tar("../../x"), IMPORT,
        "bad: '../../x': a member's name leads out of the archive\n" + JOBS),
    "a tar that leads to the root": (_tar("/x"), IMPORT,
        "bad: '/x': a member's name leads out of the archive\n" + JOBS),
    "a tar with a link": (_tar("model_algo-1", tarfile.SYMTYPE, "/etc/passwd"), IMPORT, LINK),
    "a tar with a hard link": (_tar("model_algo-1", tarfile.LNKTYPE, "/etc/passwd"), IMPORT, LINK),
    "a tar with a device": (_tar("model_algo-1", tarfile.CHRTYPE), IMPORT, LINK),
    "a tar with a pipe": (_tar("model_algo-1", tarfile.FIFOTYPE), IMPORT, LINK),
    "a bomb": (_tar("model_algo-1", size=1 << 32), IMPORT,
        "bad: model_algo-1: the member claims 4294967296 bytes\n" + JOBS),
    "a pickle for an artifact": (pickle.dumps({"bias": 1.0}), IMPORT,
        "bad: the archive cannot be read: truncated header\n" + JOBS),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_is_refused(name: str, attempt: Try, tmp_path: Path) -> None:
    """Nothing is loaded, nothing is written, inside the folder or out of it."""
    content, words, error = MODELS[name]
    around = set(tmp_path.parent.iterdir())
    assert attempt("bad", content, words) == (3, error)
    assert set(tmp_path.parent.iterdir()) == around


# A study that is new, what `fmtune run` says of it, and its exit code.

RUNS: dict[str, tuple[str, int, str]] = {
    "a rate of a million": (OTHER.replace("1e-3..0.5 log", "1e6..2e6"), 0,
        r"warning: test:binary_classification_cross_entropy is [\d.e+]+, worse than predicting the train labels' mean "
        r"for every row \(0.694961\): more epochs, or other rates, may learn something\n"),
    "every trial diverges": (OTHER.replace("1e-3..0.5 log", "1e28..1e30 log").replace("0.05", "1e30"), 6,
        r"other: none of 4 trials succeeded: 4 diverged with linear_lr [\d.e+]+, factors_lr [\d.e+]+\n"
        r"  hint: lower the learning rates, or set clip_gradient\n"),
    "4096 factors of 1e8 features": (
        OTHER.replace("holdout: holdout.npz", "feature_dim: 100000000").replace("1..12", "4095..4096"), 5,
        r"trial 0 \(num_factors 4096\) needs 457\d.\d GiB for 100000000 features, and [\d.]+ GiB may be used\n"
        r"  hint: search a smaller num_factors, or run where there is more memory\n"),
}  # fmt: skip


@pytest.mark.filterwarnings("default:test.binary")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_comes_to_nothing_says_why(name: str, attempt: Try) -> None:
    """With the ranges that diverge, or the memory that is missing."""
    text, code, error = RUNS[name]
    got, found = attempt("other.yaml", text, "run other.yaml --no-report")
    assert got == code and re.fullmatch(error, found), found


# What is done to the study's database, and what `run` and `status` say of it.

DATABASE = "sqlite:///HERE/runs/small/study.db: cannot be opened: "
ASIDE = "  hint: check the file and the place; `--fresh` starts the study anew and keeps the old file aside\n"


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _sql(statement: str) -> Callable[[Path], Any]:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return change


DATABASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (_bytes(lambda _: b""), "it is empty, though the study beside it has a model\n" + ASIDE),
    "cut": (_bytes(lambda content: content[: len(content) // 2]), "database disk image is malformed\n" + ASIDE),
    "foreign": (_bytes(lambda _: b"<html>" * 1000), "file is not a database\n" + ASIDE),
    "flipped": (_bytes(lambda c: bytes(b ^ 255 if i > 8192 and i % 97 == 0 else b for i, b in enumerate(c))),
        "malformed database schema (studies)\n" + ASIDE),
    "without a table": (_sql("DROP TABLE trial_values"),
        "it is damaged, or of another version of Optuna: it has no table 'trial_values'\n" + ASIDE),
    "newer": (_sql("UPDATE alembic_version SET version_num = 'v9.9.9.a'"),
        "a newer version of Optuna made its tables\n  hint: update Optuna: pip install -U optuna\n"),
    "older": (_sql("UPDATE alembic_version SET version_num = 'v2.6.0.a'"),
        "an older version of Optuna made its tables\n"
        "  hint: copy the database, then: optuna storage upgrade --storage URL\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATABASES)
def test_a_bad_database_is_refused(name: str, attempt: Try) -> None:
    """Exit code 4; the file stays for whoever wants to mend it."""
    damage, error = DATABASES[name]
    for verb in ("run", "status"):
        assert attempt("runs/small/study.db", damage, f"{verb} study.yaml") == (4, DATABASE + error)


# A storage URL, and what every verb that opens it says: exit code 4.

SERVER = "  hint: check the address, the user and the password, and that the server runs\n"
AWAY = 'cannot be opened: connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused\n'
CANARY = "c4n@ry"

URLS: dict[str, str] = {
    f"postgresql://me:{CANARY}@127.0.0.1:1/x": "postgresql://me:***@127.0.0.1:1/x: cannot be opened: "
        "it has more than one @, or one behind a ?; in a password write them as %40 and %3F\n" + SERVER,
    "postgresql://me:c4n@127.0.0.1:1/x": "postgresql://me:***@127.0.0.1:1/x: " + AWAY + SERVER,
    f"postgresql://127.0.0.1/x?password={CANARY}": "postgresql://127.0.0.1/x?password=***: cannot be opened: "
        "it has more than one @, or one behind a ?; in a password write them as %40 and %3F\n" + SERVER,
    "postgresql://127.0.0.1:1/x?password=c4n": "postgresql://127.0.0.1:1/x?password=***: " + AWAY + SERVER,
    "mysql+pymysql://me:c4n@127.0.0.1:1/x": "mysql+pymysql://me:***@127.0.0.1:1/x: cannot be opened: No module named "
        "'pymysql'\n  hint: the database's driver is not installed: pip install pymysql\n",
    "nosuch://me:c4n@h/x": "nosuch://me:***@h/x: cannot be opened: 'nosuch' is no kind of database that "
        "SQLAlchemy knows\n  hint: use sqlite:////FOLDER/FILE.db or postgresql+psycopg://HOST/NAME; Optuna's journals "
        "and gRPC are not read\n",
    "sqlite://me:c4n@h/x": "sqlite://me:***@h/x: cannot be opened: a sqlite URL names no host\n"
        "  hint: write sqlite:////FOLDER/FILE.db\n",
    "sqlite:////nosuch/x.db": "sqlite:////nosuch/x.db: cannot be opened: there is no folder '/nosuch'\n"
        "  hint: make the folder, or name another\n",
    "sqlite://": "sqlite://: cannot be opened: a database in memory keeps nothing\n"
        "  hint: name a file, or leave storage out\n",
}  # fmt: skip

VERBS = (
    "run", "run --json", "run --fresh", "worker", "status", "status --json", "best", "report", "report --md",
    "confirm --seeds 2", "dashboard --no-browser", "plan", "export mlflow-study --to sqlite:///m.db",
    "sagemaker export-tuning-job",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_storage_that_cannot_be_opened_is_refused(url: str, attempt: Try) -> None:
    """The password is in no message."""
    assert attempt("other.yaml", OTHER + f'storage: "{url}"\n', "run other.yaml") == (4, URLS[url])


# A mode, what it is given to, a command, and what that says: exit code 5, or 2 for a study file.

RIGHTS = "  hint: check the permissions, or name another place\n"
FOLDER = "  hint: check the folder and its permissions, or name another place\n"
PLACE = "  hint: check the place, its permissions and the space on its disk\n"

DENIED: dict[str, tuple[int, str, str, int, str]] = {
    "a folder": (0o555, ".", "predict runs/small/model.fm test.npz -o p.csv", 5,
        "p.csv: cannot be written: Permission denied\n" + FOLDER),
    "the folder of runs": (0o555, "runs", "run --fresh study.yaml", 5, "HERE/runs/small: Permission denied\n" + PLACE),
    "the lock": (0o444, "runs/.small.lock", "run study.yaml", 5, "HERE/runs/.small.lock: Permission denied\n" + PLACE),
    "the database": (0, "runs/small/study.db", "status study.yaml", 5,
        DATABASE + "its file may not be read: permission denied\n" + RIGHTS),
    "the database, to be written": (0o444, "runs/small/study.db", "run study.yaml", 5,
        "small: the study's database cannot be written: attempt to write a readonly database\n"
        "  hint: check the permissions of its file and its folder\n"),
    "the database's folder": (0o555, "runs/small", "confirm study.yaml", 5,
        DATABASE + "its folder may not be written: permission denied\n" + RIGHTS),
    "a model's folder": (0o555, ".", "fit train.npz -o m.fm", 5,
        "m.fm: cannot be written: Permission denied\n" + FOLDER),
    "a folder as a model": (0o755, ".", "fit train.npz -o runs", 5,
        "runs: cannot be written: Is a directory\n" + FOLDER),
    "a file as a folder": (0o755, ".", "fit train.npz -o study.yaml/m.fm", 5,
        "study.yaml/m.fm: cannot be written: Not a directory\n" + FOLDER),
    "the study file": (0, "study.yaml", "run study.yaml", 2,
        "study.yaml: cannot be read: Permission denied\n  hint: check its name and its permissions\n"),
    "a data file": (0, "train.npz", "run study.yaml", 5,
        "train.npz: the file may not be read: permission denied\n  hint: check its permissions\n"),
    "a model": (0, "runs/small/model.fm", "inspect runs/small/model.fm", 5,
        "runs/small/model.fm: the file may not be read: permission denied\n  hint: check its permissions\n"),
}  # fmt: skip


@pytest.fixture
def _unprivileged() -> Iterator[None]:
    """Let permissions hold for the superuser too: his capabilities to pass them by (1, 2) are put down meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("the superuser may read and write everything")
    libc, head, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, sets) == 0
    before, sets[0] = sets[0], sets[0] & ~0b110
    assert libc.capset(head, sets) == 0
    yield
    sets[0] = before
    assert libc.capset(head, sets) == 0


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.usefixtures("_unprivileged")
def test_a_place_that_may_not_be_used_is_named(name: str, attempt: Try, tmp_path: Path) -> None:
    """Exit code 5; 2 for a study file."""
    mode, place, words, code, error = DENIED[name]
    try:
        assert attempt(place, lambda path: path.chmod(mode), words) == (code, error)
    finally:
        (tmp_path / place).chmod(0o755)


# Passwords.


@pytest.mark.filterwarnings("default")
def test_no_verb_shows_a_password(tmp_path: Path) -> None:
    """Of a storage that is away: neither in a message nor in a traceback, a log, or any file."""
    write_data(tmp_path, 20)
    for url in (f"postgresql://me:{CANARY}@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?user=me&password=c4nary"):
        (tmp_path / "study.yaml").write_text(f"{OTHER}storage: {url}\n")
        for verb in VERBS:
            code, out, error = said(tmp_path, "--debug", *verb.split(), "study.yaml")
            assert code in ((0,) if "tuning-job" in verb else (2, 4)) and not _tells(out + error), verb
    write_study(tmp_path, SMALL)
    assert said(tmp_path, "run", "study.yaml").code == 0
    for scheme in ("http", "postgresql"):
        address = f"{scheme}://me:c4nary@127.0.0.1:1/x"
        code, out, error = said(tmp_path, "--debug", "export", "mlflow-study", "study.yaml", "--to", address)
        assert code == 4 and "Traceback" in error and not _tells(out + error)
    assert not any(_tells(path.read_text(errors="replace")) for path in tmp_path.rglob("*[!l]") if path.is_file())


@pytest.mark.filterwarnings("default")
def test_a_password_is_stored_nowhere(tmp_path: Path) -> None:
    """A working study whose file holds one, in a comment, keeps it out of database, model, report and exports."""
    write_study(tmp_path, f"{SMALL}# storage: postgresql://me:{CANARY}@host/x?password={CANARY}\n")
    for verb in VERBS:
        if not any(word in verb for word in ("fresh", "dashboard", "mlflow")):
            code, out, error = said(tmp_path, *verb.split(), "study.yaml")
            assert code == 0 and not _tells(out + error), verb
    made = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "study.yaml"]
    assert len(made) > 6 and not any(_tells(path.read_text(errors="replace")) for path in made)


def _tells(text: str) -> bool:
    return "c4n" in text or "ry@" in text


def test_every_verb_of_a_study_is_tried() -> None:
    """``VERBS`` here are all of the command's that take a study file."""
    taken = {verb.name for verb in cli.VERBS if any(p.name in ("study", "studies") for p in verb.params)}
    assert taken <= {verb.split()[0] for verb in VERBS}
