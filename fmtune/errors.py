"""One tree of errors; each carries where it happened, what is wrong, and what to do next.

::

    FmtuneError                    exit code
    ├── UsageError                 2   the command line or an argument of the API
    │   └── StudyFileError         2   study.yaml, with line and column
    ├── DataError                  3   a data file, record or value
    ├── ModelError                 3   a model file
    ├── StorageError               4   the study's database
    ├── ResourceError              5   disk, memory, port, permission, missing extra
    ├── NoTrialError               6   no trial of the study succeeded
    └── Hung                       70  training makes no step any more

    KeyboardInterrupt
    └── Interrupted                130 / 143   stopped by a signal; resumable

Code 1 is a finding (a gate's "regressed"), 70 a bug of ours: any other exception too.
"""

from __future__ import annotations


class FmtuneError(Exception):
    """Base of every error that fmtune raises on purpose.

    Parameters
    ----------
    what
        What is wrong, in a few words; the offending value is quoted with ``repr``.
    where
        The place: ``file:line:column``, ``file: record 17, byte 2301``, an option.
    hint
        The next step for whoever reads it.
    snippet
        Source lines with a caret, where there are any.
    """

    exit_code = 70

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, snippet: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.snippet = snippet

    def __str__(self) -> str:
        """``where: what`` on one line, then the snippet and the hint, each where there is one."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.snippet:
            lines.append(self.snippet)
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class UsageError(FmtuneError):
    """The command line, or an argument of a public function, is wrong."""

    exit_code = 2


class StudyFileError(UsageError):
    """A study file cannot be read as one; ``faults`` holds every fault found, each an error of its own."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        snippet: str | None = None,
        faults: tuple[FmtuneError, ...] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint, snippet=snippet)
        self.faults = faults


class DataError(FmtuneError):
    """A data file, record or value cannot be used."""

    exit_code = 3


class ModelError(FmtuneError):
    """A model file is damaged, foreign, or does not fit the rows it is asked to score."""

    exit_code = 3


class StorageError(FmtuneError):
    """The study's database is damaged, locked, or holds another study."""

    exit_code = 4


class ResourceError(FmtuneError):
    """Disk, memory, a port, a permission or an optional package is missing."""

    exit_code = 5


class NoTrialError(FmtuneError):
    """No trial of the study succeeded, so there is no best one."""

    exit_code = 6


class Hung(FmtuneError):
    """Training makes no step any more; its thread cannot be ended, so the process has to be."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run at a safe point; the same call continues it.

    It is what Ctrl-C is elsewhere in Python, so that ``except Exception`` does not swallow it.

    Parameters
    ----------
    what
        What is kept.
    signal
        Its number.
    hint
        How to go on.
    """

    def __init__(self, what: str, *, signal: int, hint: str) -> None:
        super().__init__(what)
        self.what, self.signal, self.hint = what, signal, hint
        self.exit_code = 128 + signal

    def __str__(self) -> str:
        """What is kept on one line, then the hint."""
        return f"{self.what}\n  hint: {self.hint}"
