"""Pages for the browser tests, one of them a real study of 1,000 trials: python tests/browser/pages.py FOLDER.

The study is kept in FOLDER/runs and goes on where it stopped, so a second call takes seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from report_fixtures import confirmed, heavy, of_state, study  # noqa: E402
from test_report_page import HOSTILE, WRITTEN, hostile  # noqa: E402

from fmtune.report.compare import build_comparison  # noqa: E402
from fmtune.report.page import build  # noqa: E402
from fmtune.tune import spec as specs  # noqa: E402
from fmtune.tune import study as studies  # noqa: E402
from fmtune.tune.collect import collect  # noqa: E402
from fmtune.tune.result import StudyResult  # noqa: E402

THOUSAND = """\
study_name: thousand
data: digits
objective: test:binary_classification_cross_entropy
hyperparameters: {epochs: 2, mini_batch_size: 100, bias_lr: 0.01}
search_space:
  optimizer: [adam, adagrad]
  num_factors: 2..16 log
  linear_lr: 1e-3..1 log
  factors_lr: 1e-3..1 log
  factors_init_sigma: 1e-3..3e-1 log
sampler: random
pruner: none
n_trials: 1000
pack: 32
matrix: {device: [cpu], layout: [sparse, dense]}
"""


def thousand(folder: Path) -> StudyResult:
    """Return a finished study of 1,000 short trials in each of two cells."""
    spec = specs.parse(THOUSAND, folder / "thousand.yaml")
    studies.run(spec, root=folder)
    return collect(spec, folder)


def main(folder: Path) -> None:
    """Write every page, and the hostile strings' pages in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    other = study(64, 5, study_name="two")
    pages = {
        "digits": build(confirmed(study(64), "undecided", "undecided")),
        "heavy": build(heavy()),
        "thousand": build(thousand(folder)),
        "failed": build(of_state("FAIL")),
        "empty": build(study(0, cells=(), importance={})),
        "comparison": build_comparison([confirmed(study(40, study_name="one"), "better"), other]),
    }
    for place, text in enumerate(HOSTILE):
        pages[f"hostile/{place:02d}"] = build(hostile(text)) if place % 6 == 0 else build(hostile(text), WRITTEN)
    for name, html in pages.items():
        path = folder / f"{name}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(html, encoding="utf-8")
    print(json.dumps({name: len(html.encode()) for name, html in pages.items() if "/" not in name}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
