"""``python -m fmtune`` and the ``fmtune`` command: run a verb, turn errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

from fmtune import cli
from fmtune.errors import FmtuneError


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code (``fmtune/errors.py`` lists them)."""
    words = sys.argv[1:] if args is None else args
    sys.exit(_code(words))


def _code(words: list[str]) -> int:
    try:
        cli.fmtune.main(words, prog_name="fmtune", standalone_mode=False)
        sys.stdout.flush()
    except FmtuneError as error:
        return _say(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help_ = f"\n  hint: see `{context.command_path} --help`" if context else ""
        return _say(error.format_message() + help_, 2)
    except (KeyboardInterrupt, click.Abort):
        return _say("stopped", 130)
    except BrokenPipeError:
        # The reader of our output has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        return _say("out of memory\n  hint: search a smaller num_factors or fewer lanes (`pack:`)", 5)
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        hint = "\n  hint: this is a fault of fmtune; run again with --debug and report what it prints"
        return _say(f"internal error: {type(error).__name__}: {error}"[:2000] + hint, 70)
    return 0


def _say(text: str, code: int) -> int:
    if "--debug" in sys.argv and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"error: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
