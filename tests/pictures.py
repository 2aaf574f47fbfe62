"""The README's pictures, made from a real run of the digits study: ``make pictures``.

The terminal's is the run's own screen, drawn by rich; the page's is a screenshot by Chromium.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from fmtune.report import page
from fmtune.screen import Screen
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from fmtune.tune.study import run

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,800")


def main() -> None:
    """Run the study in a scratch folder and write docs/pictures/digits.png and terminal.svg."""
    spec = specs.read(ROOT / "studies" / "digits.yaml")
    spec = spec.model_copy(update={"path": Path("studies/digits.yaml")})
    screen = Screen()
    console = Console(record=True, width=96, file=io.StringIO())
    with tempfile.TemporaryDirectory() as scratch:
        done, here = 0, Path.cwd()
        os.chdir(scratch)  # so that the page names runs/digits, not the scratch folder

        def listen(event: dict[str, object]) -> None:
            nonlocal done
            if event["event"] == "study":
                event = {**event, "storage": "sqlite:////home/me/runs/digits/study.db"}
            screen(event)
            done += event["event"] == "trial"
            if done == 96:  # in the middle of the second cell
                done += 1
                console.print("$ fmtune run studies/digits.yaml")
                console.print(screen.render())

        run(spec, listener=listen)
        page.write(collect(spec), PICTURES / "digits.html")
        os.chdir(here)
    # Without rich's own font, which would be fetched from elsewhere.
    drawing = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="fmtune"), flags=re.DOTALL)
    (PICTURES / "terminal.svg").write_text(drawing)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium: reports/digits.png was not drawn")
    with tempfile.TemporaryDirectory() as profile:
        shot = f"--screenshot={PICTURES / 'digits.png'}"
        address = (PICTURES / "digits.html").as_uri()
        words = [browser, *CHROMIUM, f"--user-data-dir={profile}", shot, address]
        subprocess.run(words, check=True, capture_output=True)
    (PICTURES / "digits.html").unlink()


if __name__ == "__main__":
    main()
