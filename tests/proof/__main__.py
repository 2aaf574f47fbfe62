"""Proof: ``python -m tests.proof`` tries the promises R1 to R11 and prints them as a table.

``--size release`` is what is promised; ``--write docs/trust.md`` puts the rows between that page's marks, where rows
of claims that were not tried now stay as they are.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from fmtune.files import atomic_write
from tests.proof import child
from tests.proof.claims import CLAIMS, SIZES, Bench, Row

_MARKS = re.compile(r"(<!-- proof -->\n).*(<!-- /proof -->)", re.DOTALL)


def table(rows: list[Row], size: str, before: str = "") -> str:
    """Return the rows as Markdown, each with the size, date and commit that it was tried at; ``before`` has others."""
    said = {True: "yes", False: "**no**", None: "-"}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout
    tried = f"{size}, {datetime.datetime.now(datetime.UTC).date().isoformat()}, {commit.strip() or 'unknown'}"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = {line.split(" ")[1]: line for line in before.splitlines() if line.startswith("| R")}
    lines |= {r.name: f"| {r.name} | {r.claim} | {r.measured} | {tried} | {said[r.held]} |" for r in rows}
    return "\n".join([
        f"`make proof`, {machine}; each row with its size, date and commit.", "",
        "| | claim | measured | tried | holds |", "|---|---|---|---|---|",
        *(lines[name] for name in CLAIMS if name in lines), "",
    ])  # fmt: skip


def main() -> int:
    """Try the claims; 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--write", type=Path)
    parser.add_argument("claims", nargs="*", default=list(CLAIMS))
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # damaged inputs are what the parsers warn of
    child.warm()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name in given.claims:
            began = time.monotonic()
            rows.append(CLAIMS[name](bench, SIZES[given.size]))
            row = rows[-1]
            print(f"{name} {time.monotonic() - began:.0f} s: {row.measured}", file=sys.stderr, flush=True)
            for fault in row.faults:
                print(f"  {fault}", file=sys.stderr, flush=True)
    page = given.write.read_text() if given.write else "<!-- proof -->\n<!-- /proof -->"
    text = table(rows, given.size, page)
    print(text)
    if given.write:
        atomic_write(given.write, _MARKS.sub(lambda m: m[1] + text + m[2], page).encode())
    return int(any(row.held is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
