"""Devices on a machine without a card; ``tests/simulated`` has one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmtune
from fmtune.errors import ResourceError, UsageError
from fmtune.fm import cuda_card
from fmtune.fm.feed import Recipe
from fmtune.fm.hyperparameters import Hyperparameters, cpu_only
from fmtune.kernels.rules import RULES
from fmtune.tune import devices, plan
from fmtune.tune import spec as specs
from fmtune.tune.collect import collect
from fmtune.tune.spec import Cell
from tests import fm_reference as reference
from tests.processes import Limited
from tests.study_fixtures import STUDY, write_study
from tests.study_fixtures import fmtune as cli

if cuda_card.cards():
    pytest.skip("this machine has a card", allow_module_level=True)

SMALL = STUDY.replace("n_trials: 24", "n_trials: 2").replace("epochs: 4", "epochs: 1")


def test_auto_takes_the_cpu_and_says_so(tmp_path: Path) -> None:
    """``device: auto`` runs as cpu cells, once each, and both the plan and the run say why."""
    path = write_study(tmp_path, SMALL.replace("{layout: [sparse, dense]}", "{device: [auto, cpu]}"))
    assert "device auto: cpu, no CUDA device" in "\n".join(plan.lines(specs.read(path)))
    done = cli(tmp_path, "run", path, "--no-report")
    assert done.returncode == 0 and "device auto: cpu, no CUDA device" in done.stdout
    result = collect(specs.read(path), tmp_path)
    assert [(cell.name, cell.note, len(cell.trials)) for cell in result.cells] == [("cpu-sparse", None, 2)]


def test_a_study_of_gpu_cells_only_is_an_error(tmp_path: Path) -> None:
    """Where no cell can run, the reason is said, with a hint."""
    path = write_study(tmp_path, SMALL.replace("{layout: [sparse, dense]}", "{device: gpu}"))
    with pytest.raises(ResourceError, match="searches on gpu-sparse: no CUDA device") as caught:
        fmtune.run(path, root=tmp_path)
    assert caught.value.hint == devices.HINT


def test_fit_refuses_a_card_that_is_not_there() -> None:
    """``gpu`` is an error, ``auto`` a warning, and another word names the words."""
    data = reference.rows(40, 9, 3, binary=False)
    with pytest.raises(ResourceError, match="no CUDA device"):
        fmtune.fit(data, device="gpu")
    with pytest.warns(UserWarning, match="device auto: cpu, no CUDA device"):
        fmtune.fit(data, device="auto", num_factors=2, epochs=1)
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        fmtune.fit(data, device="tpu")
    objective = {"search_space": {"num_factors": "1..4"}, "device": "gpu"}
    with pytest.raises(ResourceError, match="no CUDA device"):
        fmtune.Objective(data, data, **objective)


def test_sweeps_run_on_the_cpu_only() -> None:
    """A card has no kernels of als and mcmc: such a cell is not run, and ``auto`` is the CPU."""
    assert devices.missing(Cell("gpu", "sparse"), cpu_only(("sgd", "als"), ())) == "solver als runs on the CPU only"
    with pytest.warns(UserWarning, match="device auto: cpu, solver mcmc runs on the CPU only"):
        assert devices.choose("auto", "sparse", cpu_only(("mcmc",), ("adam",))) == "cpu"


def test_state_that_factors_share_is_on_the_cpu_only(tmp_path: Path) -> None:
    """A card has no kernels of the row-wise rule: one model, a cell that may come to it and a pack are refused."""
    said = "optimizer rowwise_adagrad runs on the CPU only"
    data = reference.rows(40, 9, 3, binary=False)
    with pytest.raises(ResourceError, match=said):
        fmtune.fit(data, device="gpu", optimizer="rowwise_adagrad")
    text = SMALL.replace("{layout: [sparse, dense]}", "{device: gpu}").replace("adagrad]", "rowwise_adagrad]")
    with pytest.raises(ResourceError, match=said):
        fmtune.run(write_study(tmp_path, text), root=tmp_path)
    for rule, row in RULES.items():
        assert (cpu_only((), (rule,)) != ()) == row.rowwise
        if row.rowwise:
            with pytest.raises(ResourceError, match=said):
                Recipe.of(Hyperparameters(optimizer=rule), "sparse", "gpu")


def test_the_suite_of_a_card_says_that_there_is_none(tmp_path: Path) -> None:
    """``fmtune bench --suite gpu`` ends with 0 and says that nothing was run, in words and as JSON."""
    done = cli(tmp_path, "bench", "--suite", "gpu", "--json")
    assert done.returncode == 0 and "not run: no CUDA device" in done.stderr
    assert json.loads(done.stdout)["not_run"] == "no CUDA device"


def test_numba_cuda_is_used_wherever_it_lies(tmp_path: Path) -> None:
    """What pip leaves beside it, and Python reads in its own folders only, is done before CUDA is imported."""
    (tmp_path / "_numba_cuda_redirector.py").touch()
    code = "import sys; from fmtune.fm import cuda_card; print('_numba_cuda_redirector' in sys.modules)"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.stdout == b"True\n", done.stderr


_CLAIM = """
import sys
from pathlib import Path
from fmtune.fm import cuda_card
env = {}
print(cuda_card.claim(Path(sys.argv[1]), Path(sys.argv[1]), env), env.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


def test_processes_take_a_card_each(tmp_path: Path) -> None:
    """Of three stand-in cards two processes take one each; when one has ended, its card is free again."""
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl"):
        (tmp_path / name).touch()

    def process() -> Limited:
        words = [sys.executable, "-c", _CLAIM, str(tmp_path)]
        return Limited(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    taken = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            one = stack.enter_context(process())
            assert one.stdout is not None
            taken.append(one.stdout.readline().split())
        assert taken == [["0", "0"], ["1", "1"]]
    with process() as again:
        assert again.communicate("", timeout=60)[0].split() == ["0", "0"]
    assert cuda_card.claim(tmp_path, tmp_path, {"CUDA_VISIBLE_DEVICES": "2"}) is None
