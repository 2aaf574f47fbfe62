"""``python -m fmtune`` and the ``fmtune`` command: run a verb, turn errors into one line and an exit code.

Signals are looked after before anything slow is imported.  The first SIGINT, SIGTERM or SIGHUP stops at the
next safe point; one that has not been reached ``GRACE`` seconds later (a kernel is being compiled, a disk
does not answer) is not waited for: what was finished is on the disk, and the next run goes on from there.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmtune.errors import FmtuneError

GRACE = 1.7
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP came; click answers a KeyboardInterrupt itself, and not as we do."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code (``fmtune/errors.py`` lists them)."""
    words = sys.argv[1:] if args is None else args
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Closed by whoever started us: a file that we write would take its number, and our words.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    _heed_signals(_farewell(words))
    sys.exit(_code(words))


def _code(words: list[str]) -> int:
    """Return the exit code of a command line; what went wrong is said on standard error."""
    import click

    from fmtune import cli
    from fmtune.cli.common import Halted
    from fmtune.errors import FmtuneError, Hung

    debug = "--debug" in words
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            code = cli.fmtune.main([w for w in words if w != "--debug"], prog_name="fmtune", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Hung as error:
        code = _say([str(error)], error.exit_code, debug)
        sys.stdout.flush()
        os._exit(code)  # the thread that hangs would be waited for
    except FmtuneError as error:
        return _say(_faults(error), error.exit_code, debug)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"\n  hint: see `{context.command_path} --help`" if context else ""
        text = error.format_message()
        return _say([text[:1].lower() + text[1:].rstrip(".") + hint], 2, debug)
    except Halted as halted:
        # Who stopped a run knows that nothing went wrong.
        return _say([str(halted)], halted.exit_code, debug, "")
    except Stopped as stop:
        return _say([_farewell(words)], 128 + stop.number, debug, "")
    except (KeyboardInterrupt, click.Abort):
        return _say([_farewell(words)], 128 + signal.SIGINT, debug, "")
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            return 0  # a shell asked for completions
        # The reader of our output has gone; click turns that into SystemExit, and into nothing else.
        return _unheard(signal.SIGPIPE)
    except MemoryError:
        return _say(["out of memory\n  hint: search a smaller num_factors, or fewer lanes (`pack:`)"], 5, debug)
    except OSError as error:
        if error.errno == errno.EIO and _terminal_has_gone():
            return _unheard(signal.SIGHUP)
        place = f"{error.filename}: " if error.filename else ""
        hint = "\n  hint: check the place, its permissions and the space on its disk"
        return _say([f"{place}{error.strerror or error}{hint}"], 5, debug)
    except Exception as error:
        hint = "\n  hint: this is a fault of fmtune; run again with --debug and report what it prints"
        return _say([f"internal error: {type(error).__name__}: {error}"[:2000] + hint], 70, debug)


def _faults(error: FmtuneError) -> list[str]:
    """Return the texts of an error; a study file's faults are shown one by one, twenty at most."""
    faults = [str(fault) for fault in getattr(error, "faults", ())]
    if len(faults) > 20:
        faults[20:] = [f"and {len(faults) - 20} faults more"]
    return faults or [str(error)]


def _say(texts: list[str], code: int, debug: bool, lead: str = "error: ") -> int:
    # A closed terminal takes no more words; the code still counts.
    try:
        if debug:
            from fmtune.tune.places import redacted

            # What others raise holds the addresses that they were given.
            print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        for text in texts:
            print(f"{lead}{text}", file=sys.stderr, flush=True)
    except OSError:
        pass
    return code


def _terminal_has_gone() -> bool:
    try:
        os.write(sys.stdout.fileno(), b"")
    except OSError:
        return True
    return False


def _unheard(number: int) -> int:
    """Return the exit code where nobody reads our output; what is still buffered must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + number


def _warned(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _farewell(words: list[str]) -> str:
    """Return what is said of a signal."""
    kept = "; finished trials are kept\n  hint: run the same command again: it goes on where it stopped"
    return "stopped" + (kept if "run" in words[:2] else "")


def _heed_signals(text: str) -> None:
    """Take SIGINT, SIGTERM and SIGHUP, except those that whoever started us had ignored."""
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            _leave(number, text)
        # Half-imported extensions turn an exception into something else, and nothing is begun yet.
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                _leave(number, text)
            frame = frame.f_back
        raise Stopped(number)

    mine = {s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    for number in mine:
        signal.signal(number, interrupt)
    # Signals are also written to a pipe, whoever handles them; a thread reads it, so that a busy main thread or
    # another handler does not matter.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, mine, text), daemon=True, name="signals").start()


def _watch(reader: int, mine: set[signal.Signals], text: str) -> None:
    number = 0
    while number not in mine:
        number = os.read(reader, 1)[0]
    time.sleep(GRACE)
    _leave(number, text)


def _leave(number: int, text: str) -> None:
    """End the process at once; a live table has hidden the cursor."""
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h")
    try:
        os.write(2, f"{text}\n".encode())
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
