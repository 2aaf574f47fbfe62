"""Parse: reading the train channel from a file; the companion is the digest of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtune.bench.serve import Job, serve
from fmtune.data.source import read_channel


def prepare(request: Mapping[str, Any]) -> Job:
    """A sample reads the file ``inner`` times; after the first reading it is in the page cache."""
    case, path = request["case"], Path(request["files"]["channel"])
    known = read_channel(path)

    def line() -> None:
        for _ in range(case["inner"]):
            read_channel(path)

    def companions() -> dict[str, Any]:
        return {"rows": known.n, "curve": known.digest()[:16], "bytes": path.stat().st_size}

    about = {"rows": known.n * case["inner"], "bytes": path.stat().st_size * case["inner"]}
    return Job(lambda: line, companions, about)


if __name__ == "__main__":
    serve(prepare)
