"""Claims: R1 to R10 of what fmtune promises about faults, each measured and said in one row."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from fmtune.data import recordio
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack
from tests import fm_reference as reference
from tests import test_wire
from tests.proof import deaths, fuzz
from tests.proof.child import SMALL as STUDY
from tests.proof.child import Child, Facts, acknowledged, facts, prepare

# Faults shown of each claim that does not hold.
SHOWN = 3


class Size(NamedTuple):
    """How much is tried: ``SMALL`` takes about a minute, ``RELEASE`` hours."""

    kills: int
    kill_step: int
    error_step: int
    inputs: int
    records: int
    repeats: int
    trials: int
    poisons: int | None = None


SMALL = Size(kills=4, kill_step=400, error_step=800, inputs=400, records=500, repeats=4, trials=0, poisons=2)
MIDDLE = Size(kills=100, kill_step=15, error_step=45, inputs=20_000, records=20_000, repeats=20, trials=5000)
RELEASE = Size(kills=1000, kill_step=1, error_step=1, inputs=1_000_000, records=1_000_000, repeats=20, trials=5000)
SIZES = {"small": SMALL, "middle": MIDDLE, "release": RELEASE}


class Row(NamedTuple):
    """One line of the table; ``held`` None means that it was not tried."""

    name: str
    claim: str
    measured: str
    held: bool | None
    faults: tuple[str, ...] = ()


class Bench:
    """What the claims about deaths share: a folder, and the study as it goes without a stop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.whole: Facts
        self.whole, self.seconds = deaths.straight(root / "straight")
        self._writes = 0

    @property
    def writes(self) -> int:
        """How many writes the study makes; counted once."""
        self._writes = self._writes or deaths.writes(self.root / "writes")
        return self._writes


def _tallied(name: str, claim: str, parts: dict[str, deaths.Tally]) -> Row:
    told, faults = sum(t.told for t in parts.values()), [f for t in parts.values() for f in t.faults]
    ended = sum(t.completed for t in parts.values())
    tried = ", ".join(f"{t.tried} {what}" for what, t in parts.items())
    words = f"{tried}; {told} trials told, {len(faults)} faults; {ended} studies ended as without a stop"
    if given_up := sum(t.given_up for t in parts.values()):
        words += f", {given_up} with a trial given up after five deaths in a row"
    return Row(name, claim, words, not faults, tuple(faults[:SHOWN]))


def killed(bench: Bench, size: Size) -> Row:
    """R1: nothing told is lost to kill -9 at a random time, and what is reopened is reopened soon."""
    tally = deaths.kills(bench.root, size.kills, bench.whole, bench.seconds)
    row = _tallied("R1", "kill -9 at random times loses no trial that was told", {"runs": tally})
    return row._replace(measured=f"{row.measured}; slowest reopening {tally.slowest_reopening:.1f} s")


def killed_at_writes(bench: Bench, size: Size) -> Row:
    """R2: nor at any write, nor when the recovery is killed at a write of its own."""
    tally = deaths.at_writes(bench.root, "signal=SIGKILL", bench.writes, size.kill_step, bench.whole)
    claim = f"kill -9 at each {_th(size.kill_step)}write of {bench.writes}, and again while recovering, loses none"
    return _tallied("R2", claim, {"runs": tally})


def failing_writes(bench: Bench, size: Size) -> Row:
    """R3: a write that fails, once or from then on, loses nothing, and the same command completes afterwards."""
    parts = {}
    for error in ("ENOSPC", "EIO"):
        for ever in ("", "+"):
            tally = deaths.at_writes(
                bench.root, f"error={error}{ever}", bench.writes, size.error_step, bench.whole, len(parts)
            )
            parts[f"{error} {'from then on' if ever else 'once'}"] = tally
    return _tallied("R3", f"a full or failing disk at each {_th(size.error_step)}write loses none", parts)


def _th(step: int) -> str:
    return "" if step == 1 else f"{step}th "


def flipped(bench: Bench, size: Size) -> Row:
    """R4: a model file cut at any byte or with any bit flipped is refused, and so is a data file with an index."""
    whole = fuzz.model().to_bytes()
    count, refused = fuzz.flips(Model.from_bytes, whole)
    records = fuzz.surfaces()["RecordIO and protobuf"].specimens[0]
    tried, seen = fuzz.flips(recordio.parse, records)
    indexed = fuzz.flips(fuzz.indexed(bench.root / "indexed.pbr", records), records)
    words = (
        f"{refused} of {count} damages of a model of {len(whole)} bytes; {indexed[1]} of {indexed[0]} of RecordIO "
        f"with an index, {seen} of {tried} without"
    )
    held = refused == count and indexed[0] == indexed[1]
    return Row("R4", "each cut and each flipped bit of a model file and of indexed data is refused", words, held)


def fuzzed(_: Bench, size: Size) -> Row:
    """R5: no damaged input crashes, hangs or raises what is not ours, on any surface."""
    found, given = [], Counter[str]()
    for name, surface in fuzz.surfaces().items():
        # What takes milliseconds gets fewer: 50 s of a release.  The first inputs load what the others find loaded.
        fuzz.fuzz(surface, 5, 3)
        began = time.process_time()
        fuzz.fuzz(surface, 20, 1)
        cost = (time.process_time() - began) / 20
        inputs = max(50, min(size.inputs, int(size.inputs * 5e-5 / max(cost, 5e-5))))
        given[name] = inputs
        found += [f"{name}: {line}" for line in fuzz.fuzz(surface, inputs, 2)[1]]
    fewer = [(n, name) for name, n in given.items() if n < size.inputs]
    slow = f" ({len(fewer)} slow ones fewer, {min(fewer)[1]} fewest: {min(fewer)[0]:,})" if fewer else ""
    words = f"{len(given)} surfaces, {given.total():,} inputs, {size.inputs:,} each{slow}, {len(found)} findings"
    return Row(
        "R5", "no damaged input crashes, hangs or ends in a foreign exception", words, not found, tuple(found[:SHOWN])
    )


def parsed(_: Bench, size: Size) -> Row:
    """R6: records are read as protobuf reads them, bit for bit, and the damaged ones refused alike."""
    draw, wrong = random.Random(11), []
    for n in range(2 * size.records):
        payload = test_wire.record(draw)
        payload = payload if n % 2 else test_wire.mutated(draw, payload)
        if test_wire.load(payload) != test_wire.reference(payload):
            wrong.append(payload.hex()[:400])
    words = f"{size.records} valid and {size.records} damaged records, {len(wrong)} read otherwise"
    return Row("R6", "records are read, or refused, as protobuf does", words, not wrong, tuple(wrong[:SHOWN]))


def exact(_: Bench, size: Size) -> Row:
    """R7: gradients, an epoch and predictions agree with float64 references, by the kernels' own tests."""
    names = "gradients_equal or float64_reference or sum_over_pairs"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_kernels.py", "-k", names]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    return Row(
        "R7",
        "gradients to 1e-6, an epoch to 1e-4, predictions to 1e-6 of float64",
        _tail(run.stdout),
        not run.returncode,
    )


def _tail(text: str) -> str:
    return text.strip().splitlines()[-1].strip("= ").split(" in ")[0] if text.strip() else "no output"


def repeated(_: Bench, size: Size) -> Row:
    """R8: the same seed gives the same bytes, whatever runs beside it."""
    rows = reference.rows(2000, 300, 8)
    base = Hyperparameters(
        predictor_type="binary_classifier", num_factors=8, mini_batch_size=64, linear_lr=0.05, factors_lr=0.02
    )
    found = set()
    for layout in ("sparse", "dense"):
        for n in range(size.repeats):
            threads, beside = (1, 2, 4)[n % 3], n % 4
            others = [base.replace(seed=9 + i, num_factors=3 + 5 * i) for i in range(beside)]
            found.add(
                (layout, _digest(rows if layout == "sparse" else rows.to_dense(), layout, base, others, threads))
            )
    words = f"{size.repeats} runs in each layout, 1, 2 and 4 threads, 0 to 3 others beside: {len(found) // 2} digest"
    return Row("R8", "same seed, same model, whatever runs beside it", words, len(found) == 2)


def _digest(rows: object, layout: str, h: Hyperparameters, others: list[Hyperparameters], threads: int) -> str:
    def one(_: int) -> str:
        pack = Pack(Feed(rows), Recipe.of(h, layout))  # type: ignore[arg-type]
        lanes = pack.change(enter=[*others, h])
        for _epoch in range(3):
            pack.epoch()
        model = pack.model(lanes[-1])
        return hashlib.sha256(
            model.factors.tobytes() + model.linear.tobytes() + np.float32(model.bias).tobytes()
        ).hexdigest()

    with ThreadPoolExecutor(threads) as pool:
        return " ".join(sorted(set(pool.map(one, range(threads)))))


def shared(bench: Bench, size: Size) -> Row:
    """R9: many processes at one sqlite file lose nothing, double nothing and stay in the budget."""
    claim = "16 processes at one sqlite file: 200 trials, none lost, doubled or over the budget"
    if not size.trials:
        return Row("R9", claim, "not tried at this size", None)
    folder, began = prepare(bench.root / "shared", LARGE.format(trials=200) + "lag: 16\n"), time.monotonic()
    command = [sys.executable, "-m", "fmtune", "worker", "study.yaml", "--json"]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(subprocess.Popen.communicate, workers))
    events = [json.loads(line) for out, _ in said for line in out.splitlines()]
    told = [event["number"] for event in events if event["event"] == "trial"]
    faults = tuple(err.strip() for _, err in said if err.strip())
    with contextlib.closing(sqlite3.connect(folder / "runs/small/study.db")) as database:
        stored = [n for (n,) in database.execute("SELECT number FROM trials WHERE state = 'COMPLETE' ORDER BY number")]
    words = f"{len(told)} trials told, {len(stored)} stored, in {time.monotonic() - began:.0f} s; on PostgreSQL: "
    held = sorted(told) == stored == list(range(200)) and not faults
    return Row("R9", claim, words + "`make test-cluster`", held, faults)


def large(bench: Bench, size: Size) -> Row:
    """R10: a study of thousands of trials does not grow, and is looked at quickly."""
    claim = "a study of 5,000 trials grows by less than 100 MB; status 1 s, report 15 s"
    if not size.trials:
        return Row("R10", claim, "not tried at this size", None)
    text = LARGE.format(trials=size.trials)
    folder = prepare(bench.root / "large", text)
    child, sizes = Child(folder), []
    process = psutil.Process(child.pid)
    while (done := child.lines()) < size.trials and process.status() != psutil.STATUS_ZOMBIE:
        if done > 200:
            sizes.append(process.memory_info().rss / 1e6)
        time.sleep(0.5)
    end = child.wait(3600)
    grown = max(sizes, default=0.0) - min(sizes, default=0.0)
    status = min(_seconds(folder, "status", "study.yaml", "--json") for _ in range(3)) - _seconds(folder, "--version")
    report = _seconds(folder, "report", "study.yaml")
    page = max(path.stat().st_size for path in (folder / "reports").iterdir()) / 1e6
    words = (
        f"{size.trials} trials in {end.seconds:.0f} s, grown by {grown:.0f} MB; status {status:.1f} s after start-up, "
        f"report {report:.1f} s and {page:.1f} MB"
    )
    return Row("R10", claim, words, not end.code and grown < 100 and status <= 1 and report <= 15)


LARGE = """\
study_name: small
data: {{train: train.npz, test: test.npz}}
objective: test:binary_classification_cross_entropy
hyperparameters: {{epochs: 1, mini_batch_size: 200, num_factors: 2}}
search_space: {{linear_lr: 1e-3..0.5 log, factors_lr: 1e-3..0.5 log}}
sampler: random
pruner: none
n_trials: {trials}
"""


def _seconds(folder: Path, *words: str) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "fmtune", *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "MPLBACKEND": "Agg"})
    return time.monotonic() - began


# Trials that know nothing of each other, so that one's end changes no other; all of them beside each other.
CALM = re.sub("sampler: .*", "sampler: random", re.sub("pruner: .*", "pruner: none", STUDY)) + "stall: 1s\n"

POISONED = 3

POISONS: dict[str, Callable[[], object]] = {
    "os._exit": lambda: os._exit(1),
    "a hang": lambda: time.sleep(3600),
    "a segfault": lambda: ctypes.string_at(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "MemoryError": lambda: _raise(MemoryError()),
    "10 MB of exception": lambda: _raise(RuntimeError("x" * 10**7)),
}


def _raise(error: Exception) -> None:
    raise error


def poisoned(bench: Bench, size: Size) -> Row:
    """R11: a trial that ends its worker, however, is given up; the others end as they do without it."""
    text, faults, died = re.sub("n_trials: .*", "n_trials: 8", CALM), [], Counter[str]()
    names = list(POISONS) if size.poisons is None else list(POISONS)[: size.poisons]
    whole = Child(prepare(bench.root / "calm", text), "worker", "study.yaml", "--json").wait()
    wanted = {n: told for n, told in acknowledged(whole).items() if n != POISONED}
    for name in names:
        folder = prepare(bench.root / f"poison {name}", text)
        for _ in range(10):
            end = Child(folder, poison=(POISONED, POISONS[name])).wait()
            if end.code == 0:
                break
            died[f"{end.code}"] += 1
        found = {n: fact[:3] for n, fact in facts(folder).items()}
        state = found.pop(POISONED, ("none",))[0]
        if state != "FAIL" or found != wanted:
            faults.append(f"{name}: trial {POISONED} is {state}, others differ: {found != wanted}: {end.said[-300:]}")
    codes = ", ".join(f"{n} with {code}" for code, n in sorted(died.items()))
    words = f"{', '.join(names)}: {died.total()} workers died of {len(names)} trials ({codes}), {len(faults)} faults"
    claim = "a trial that kills or hangs its workers is given up; the others end as without it"
    return Row("R11", claim, words, not faults, tuple(faults))


CLAIMS: dict[str, Callable[[Bench, Size], Row]] = {
    "R1": killed, "R2": killed_at_writes, "R3": failing_writes, "R4": flipped, "R5": fuzzed, "R6": parsed,
    "R7": exact, "R8": repeated, "R9": shared, "R10": large, "R11": poisoned,
}  # fmt: skip
