"""Starter: a first study file for someone's data, from a look at them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fmtune.data import catalog, preparation, source, tables
from fmtune.data.cells import Float64
from fmtune.data.columns import Columns, inferred, likely_label, times
from fmtune.data.labels import Classes, Words, labels_of, told_apart
from fmtune.data.split import Divider, Split
from fmtune.errors import UsageError
from fmtune.tune import spec as specs
from fmtune.tune.places import command
from fmtune.tune.studyfile import MAX_NAME

TASKS = ("regressor", "binary_classifier")
_OBJECTIVES = {"regressor": "test:rmse", "binary_classifier": "test:binary_classification_cross_entropy"}


@dataclass(frozen=True)
class Answers:
    """What a study file is made of; ``look`` fills in what it can.

    Attributes
    ----------
    data : str
        A dataset card, or the path of the train channel: a table, or rows.
    task : str or None
        ``regressor`` or ``binary_classifier``.
    label : str or None
        A table's label column.
    test, holdout : str or None
        A path or, of a table, a share of the rows.
    by : str or None
        A table's column of times: the newest rows are tested.
    columns : Columns or None
        A table's columns by kind; None for rows and cards.
    notes : tuple of str
        Why the columns are what they are.
    classes : tuple of str
        The two words that a table's labels are, those for 0 and for 1; empty where they are numbers.
    """

    data: str
    task: str | None = None
    label: str | None = None
    test: str | None = None
    holdout: str | None = None
    by: str | None = None
    columns: Columns | None = None
    notes: tuple[str, ...] = ()
    classes: Classes = ()

    @property
    def is_card(self) -> bool:
        """Whether ``data`` names a dataset card, which says the rest."""
        return not Path(self.data).exists() and self.data in catalog.cards()

    @property
    def is_table(self) -> bool:
        """Whether ``data`` is a table; errors as in ``source.format_of``."""
        return not self.is_card and preparation.are_tables(self.data)

    def with_test(self) -> Answers:
        """Return it with a test channel; a table lends a tenth of its rows, and another tenth to be sealed away."""
        if self.is_card:
            return self
        if self.test is None and not self.is_table:
            hint = "name a file with --test; `fmtune init TABLE` takes it from the table itself"
            raise UsageError("rows need a test channel", where=self.data, hint=hint)
        test, holdout = self.test or "0.1", self.holdout
        if holdout is None and self.is_table and _is_share(test) and float(test) < 0.5:
            holdout = "0.1"
        return replace(self, test=test, holdout=holdout)

    def said(self) -> list[str]:
        """Return what was decided, in words: what is learned, how rows are divided, and why columns are what."""
        lines = [f"task: {self.task}, objective {_OBJECTIVES[str(self.task)]}"]
        if self.label is not None:
            words = f" ({self.classes[1]!r} is 1, {self.classes[0]!r} is 0)" if self.classes else ""
            lines.insert(0, f"label: {self.label}{words}")
        shares = {name: given for name in ("test", "holdout") if _is_share(given := getattr(self, name))}
        if shares:
            parts = " and ".join(f"{float(str(share)):g} for {name}" for name, share in shares.items())
            how = f"the newest by {self.by}, which is no feature" if self.by else "by chance"
            lines.append(f"rows: {parts}, {how}")
        return [*lines, *self.notes]


def guessed_label(answers: Answers) -> tuple[list[str], str | None]:
    """Return a table's columns and the one that is called as labels are, if any."""
    names = [str(name) for name in _head(answers).columns]
    return names, likely_label(names)


def look(answers: Answers) -> Answers:
    """Return the answers with what the data themselves say: the task, and a table's columns and times.

    Raises
    ------
    DataError
        The data cannot be read, or a label is neither a number nor one of two words.
    UsageError
        A table whose label is not named.
    """
    if answers.is_card:
        return replace(answers, task=catalog.cards()[answers.data].task)
    if not answers.is_table:
        rows = source.read_channel(answers.data, map_labels=False)
        assert rows.labels is not None
        told_apart(rows.labels, answers.data)
        return replace(answers, task=answers.task or _task(rows.labels))
    frame = _head(answers)
    names, guess = guessed_label(answers)
    if (label := answers.label or guess) is None:
        hint = f"--label COLUMN; the columns are {', '.join(names[:50])}"
        raise UsageError("which column is the label?", where=answers.data, hint=hint)
    if label not in names:
        hint = f"the columns are {', '.join(names[:50])}"
        raise UsageError(f"the table has no column {label!r}", where=answers.data, hint=hint)
    by = answers.by or next(iter(times(frame)), None)
    if answers.by is not None:
        # A run would refuse what is no time, and a name that is no column.
        Divider(Split(test=0.1, by=answers.by), answers.data).look(frame)
    apart = () if by is None else (by,)
    columns, notes = inferred(Columns(label=label), frame, answers.data, apart)
    classes, labels = _labels(answers.data, label)
    task = answers.task or _task(labels)
    return replace(
        answers, label=label, by=by, columns=columns, notes=tuple(notes), task=task, classes=classes
    )  # fmt: skip


def text(answers: Answers, path: Path) -> str:
    """Return the study file that ``look`` and the user came to; ``path`` is where it goes.

    Raises
    ------
    StudyFileError
        The answers make no sound study.
    """
    assert answers.task is not None
    lines = [
        "# yaml-language-server: $schema=schema.json", "#",
        f"#   {command('plan', path.name)}      # what a run would do", f"#   {command('run', path.name)}", "",
        f"study_name: {_name(path.parent / answers.data)}", *_data(answers, path.parent), "",
        f"objective: {_OBJECTIVES[answers.task]}   # implies a {answers.task}", "",
        "hyperparameters:              # the same for every trial",
        "  optimizer: adagrad",
        "  epochs: 100",
        "  patience: 4                 # ends a trial after four epochs without a better score",
        "  mini_batch_size: 100",
        *(_FAR if answers.task == "regressor" else ()),
        "", _SPACE,
        "sampler: tpe",
        "pruner:                       # ends a trial that is worse than the median of the others",
        "  name: median",
        "  n_warmup_steps: 20          # slow ones are behind at first, and often the better ones",
        "n_trials: 100                 # raise it and run again: the study goes on",
        "timeout: 10m                  # whichever comes first", "",
    ]  # fmt: skip
    made = "\n".join(lines)
    specs.parse(made, path)
    return made


_FAR = ("  bias_lr: 0.5                # from 0 to the labels' mean is a long way",)

_SPACE = """\
search_space:                 # what the sampler chooses for each trial
  num_factors: 2..128 log
  linear_lr: 3e-3..0.3 log
  factors_lr: 3e-3..0.1 log
  linear_wd: 1e-6..1e-2 log
  factors_wd: 1e-6..1e-2 log
  factors_init_sigma: 1e-3..0.1 log
"""


def _data(answers: Answers, folder: Path) -> list[str]:
    if answers.is_card:
        line = f"data: {answers.data}"
        return [f"{line:30}# a dataset card; `fmtune data list` shows its keys"]
    lines = ["data:                         # paths are relative to this file",
             f"  train: {_path(answers.data, folder)}"]  # fmt: skip
    columns = answers.columns
    if columns is not None and columns.label is not None:
        lines.append(f"  label: {_scalar(columns.label)}")
        kinds = {kind: getattr(columns, kind) for kind in ("categorical", "multivalued", "numeric")}
        lines += [f"  {kind}: [{', '.join(map(_scalar, names))}]" for kind, names in kinds.items() if names]
        lines += [f"  # {note}" for note in answers.notes]
    for name in ("test", "holdout"):
        if (given := getattr(answers, name)) is not None:
            line = f"  {name}: {given if _is_share(given) else _path(given, folder)}"
            lines.append(f"{line:30}# {_SHARES[name]}" if _is_share(given) else line)
    if answers.by is not None and columns is not None and any(map(_is_share, (answers.test, answers.holdout))):
        line = f"  by: {_scalar(answers.by)}"
        lines.append(f"{line:30}# the newest rows; leave it out to divide by chance")
    return lines


_SHARES = {"test": "a share of the rows", "holdout": "opened once, for the winner: a score that no search has seen"}


def _head(answers: Answers) -> pd.DataFrame:
    file = source.files_of(answers.data)[0]
    return tables.head(file, source.format_of(file))


def _labels(data: str, name: str) -> tuple[Classes, Float64]:
    """Return the words of a table's labels, and its labels up to the first block by which there are two.

    Raises
    ------
    DataError
        A label is neither a number nor one of two words, or all are the same.
    """
    words, texts = Words(name), set[str]()
    read: list[tuple[pd.DataFrame, int, str]] = []
    for frame, first, where in _blocks(data, name):
        words.add(frame[name], where, np.arange(first, first + len(frame)))
        read.append((frame, first, where))
        texts.update(frame[name].astype(str).unique()[:2])
        if len(texts) > 1:
            break
    classes = words.classes(data)
    labels = np.concatenate([labels_of(frame, name, classes, first, where) for frame, first, where in read])
    told_apart(labels.astype(np.float32), data, name)
    return classes, labels


def _blocks(data: str, name: str) -> Iterator[tuple[pd.DataFrame, int, str]]:
    """Yield a table's column, with the number of the first row, and the file that it is from."""
    for file in source.files_of(data):
        first = 0
        for frame in tables.blocks(file, source.format_of(file), [name]):
            yield frame, first, str(file)
            first += len(frame)


def _task(labels: object) -> str:
    """Return the task that labels are for: two of them that a classifier takes, or numbers."""
    found = pd.unique(pd.Series(np.asarray(labels)).dropna())
    return TASKS[len(found) == 2 and set(found.tolist()) in ({0, 1}, {-1, 1})]


def _is_share(given: str | None) -> bool:
    return given is not None and re.fullmatch(r"0?\.\d+", given) is not None


def _name(path: Path) -> str:
    stem = path.name.partition(".")[0] if path.name else "study"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[: MAX_NAME] or "study"


def _path(given: str, folder: Path) -> str:
    return _scalar(Path(os.path.relpath(given, folder)).as_posix())


def _scalar(word: str) -> str:
    """Return a text as YAML has it: plain where that is surely read as the same text."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./-]*", word) and word.lower() not in ("true", "false", "null", "yes", "no")
    return word if plain else json.dumps(word, ensure_ascii=False)
