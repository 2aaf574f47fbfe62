"""A SageMaker job on two hosts: this machine, and a network namespace whose cable can be pulled.

Run by `make test-cluster`; it needs root and Debian's package iproute2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmtune.rows import Rows
from tests.cluster.namespaces import namespace
from tests.test_sagemaker_hosts import SHARDED, scores
from tests.test_sagemaker_training import job, rows

NAMES = ("10.77.2.1", "10.77.2.2")
IN = (), ("ip", "netns", "exec", "fmtune-b")

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root")


def start(folder: Path, test: Rows | None, **values: str) -> list[tuple[Path, subprocess.Popen[str]]]:
    """Lay out and start both hosts' jobs."""
    made = []
    config = {**SHARDED, "test": {}} if test is not None else SHARDED
    for i, name in enumerate(NAMES):
        root = job(folder / name, rows(5000 - 2000 * i, seed=i), test, config, **values)
        here = {"current_host": name, "hosts": list(NAMES), "network_interface_name": "eth0"}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(here))
        words = [*IN[i], sys.executable, "-m", "fmtune", "sagemaker", "train", "--root", str(root)]
        out = (root / "log").open("w")
        made.append((root, subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, text=True)))
        out.close()
    return made


def test_two_hosts_train_one_model(tmp_path: Path) -> None:
    """Over a cable: one model, the same test scores on both."""
    with namespace("fmtune-b", *NAMES):
        made = start(tmp_path, rows(500, seed=9), epochs="3")
        assert [process.wait(120) for _, process in made] == [0, 0]
    logs = [(root / "log").read_text() for root, _ in made]
    assert scores(logs[0]) == scores(logs[1]) and len(scores(logs[0])) == 3
    assert [(root / "model/model_algo-1").exists() for root, _ in made] == [True, False]


def test_a_host_that_is_cut_off_ends_the_job(tmp_path: Path) -> None:
    """The cable is pulled: each host names the other in its failure."""
    with namespace("fmtune-b", *NAMES):
        made = start(tmp_path, None, epochs="1000000")
        while not all("epoch=0, train" in (root / "log").read_text() for root, _ in made):
            assert all(process.poll() is None for _, process in made)
            time.sleep(0.1)
        subprocess.run(["ip", "link", "set", "fmtune-b", "down"], check=True)
        began = time.monotonic()
        assert [process.wait(180) for _, process in made] == [5, 5]
        print(f"both ended {time.monotonic() - began:.0f} s after the cable was pulled")
    for (root, _), other in zip(made, reversed(NAMES), strict=True):
        assert f"host {other} has ended, or cannot be reached" in (root / "output/failure").read_text()
