"""fmtune.sagemaker's training job: container files, channels, pipes, SageMaker's log lines and training semantics."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmtune.data import recordio, source
from fmtune.errors import DataError
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.metrics import evaluate
from fmtune.fm.model import Model
from fmtune.fm.pack import Pack, score
from fmtune.rows import Rows, SparseRows, concatenate
from fmtune.sagemaker.artifact import import_artifact
from fmtune.sagemaker.channels import Channel, records, windows
from fmtune.sagemaker.container import Container
from fmtune.sagemaker.hyperparameters import job_of
from fmtune.sagemaker.logs import Counts, Log, Tally
from fmtune.sagemaker.training import Training
from fmtune.sagemaker.verbs import train
from tests import fm_reference as reference
from tests.processes import Limited

DIM = 30
BASE = {"feature_dim": "30", "num_factors": "4", "predictor_type": "regressor", "mini_batch_size": "100"}
NUMBER = r"(-?[0-9.]+(?:e-?[0-9]+)?)"


def rows(n: int = 1230, binary: bool = False, seed: int = 0) -> SparseRows:
    return reference.rows(n, DIM, 4, seed, binary=binary)


def job(root: Path, train: Rows | None, test: Rows | None = None, config: Any = None, **values: str) -> Path:
    """Lay out a job's folder as SageMaker does."""
    (root / "input/config").mkdir(parents=True, exist_ok=True)
    (root / "input/config/hyperparameters.json").write_text(json.dumps({**BASE, **values}))
    for name, block in (("train", train), ("test", test)):
        if block is not None:
            source.write(block, root / f"input/data/{name}/part-0.pbr")
    if config is not None:
        (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    return root


def run(root: Path, **options: Any) -> tuple[int, str]:
    lines: list[str] = []
    code = train(root, write=lines.append, **options)
    return code, "\n".join(lines)


def model_of(root: Path) -> Model:
    return import_artifact(root / "model" / "model_algo-1")


def settings(h: Mapping[str, Any]) -> Hyperparameters:
    compat = {"shuffle": "none", "pad_last_batch": True}
    return Hyperparameters.of({"mini_batch_size": 100, "num_factors": 4, **compat, **h})


def trained(block: Rows, h: Hyperparameters, layout: str) -> tuple[Model, list[np.ndarray]]:
    """Train with a pack, without this room."""
    pack = Pack(Feed(block), Recipe.of(h, layout))
    (lane,) = pack.change(enter=[h])
    scores = [pack.epoch(record=True)[0] for _ in range(h.epochs)]
    return pack.model(lane), scores


@pytest.mark.parametrize("dense", [False, True])
def test_a_job_trains_as_a_pack_does(dense, tmp_path):
    """File order, a padded last mini-batch, and Adam lazy for the sparse network only: bit for bit."""
    block: Rows = rows().to_dense() if dense else rows()
    code, log = run(job(tmp_path, block, epochs="3", factors_lr="0.01"))
    assert code == 0
    h = settings({"epochs": 3, "factors_lr": 0.01, "lazy": not dense})
    expected, _ = trained(block, h, block.layout)
    found = model_of(tmp_path)
    np.testing.assert_array_equal(found.factors, expected.factors)
    np.testing.assert_array_equal(found.linear, expected.linear)
    assert found.bias == expected.bias
    assert f"[{block.layout.capitalize()} network] Building a {block.layout} network." in log


def test_it_agrees_with_the_rule_in_float64(tmp_path):
    """Weights after two epochs, against loops written from the specification; padding has zero features, label 0."""
    block = rows()
    assert run(job(tmp_path, block, epochs="2", clip_gradient="0.5", rescale_grad="0.02"))[0] == 0
    h = settings({"epochs": 2, "clip_gradient": 0.5, "rescale_grad": 0.02})
    none = np.zeros(0, np.int32)
    padding = SparseRows(np.zeros(71, np.int64), none, none.astype("f"), np.zeros(70, "f"), DIM)
    start = Pack(Feed(block), Recipe.of(h, "sparse"))
    (lane,) = start.change(enter=[h])
    whole = concatenate([block, padding])
    bias, linear, factors = reference.train(start.model(lane), whole, h, np.arange(whole.n))
    found = model_of(tmp_path)
    assert found.bias == pytest.approx(bias, abs=1e-5)
    np.testing.assert_allclose(found.linear, linear, atol=1e-5)
    np.testing.assert_allclose(found.factors, factors, atol=1e-5)


@pytest.mark.parametrize("binary", [False, True])
def test_metrics_are_those_of_the_scores_before_each_update(binary, tmp_path):
    """Train lines include the padding and grow over the epoch; test lines are of the real rows, once, at the end."""
    block, test = rows(1230, binary), rows(417, binary, seed=9)
    kind = "binary_classifier" if binary else "regressor"
    code, log = run(job(tmp_path, block, test, epochs="2", predictor_type=kind, batch_metrics_publish_interval="5"))
    assert code == 0
    h = settings({"epochs": 2, "predictor_type": kind})
    model, scores = trained(block, h, "sparse")
    padded = np.append(block.labels, np.zeros(70, np.float32)).astype(np.float32)
    first = "binary_classification_cross_entropy" if binary else "rmse"
    for epoch in (0, 1):
        for batch in (0, 5, 10):
            seen = 100 * (batch + 1)
            expected = evaluate(scores[epoch][:seen], padded[:seen], kind)[first]
            found = value(log, f"epoch={epoch}, batch={batch} train {first} <loss>=")
            assert found == pytest.approx(expected, rel=1e-12)
        expected = evaluate(scores[epoch], padded, kind)[first]
        assert value(log, f"epoch={epoch}, train {first} <loss>=") == pytest.approx(expected, rel=1e-12)
    assert value(log, f"algo-1, train {first} <loss>=") == pytest.approx(expected, rel=1e-12)
    expected_test = evaluate(score(model, test), test.labels, kind)
    assert log.count("#test_score") == 3
    for name in expected_test:
        if name != "auc":
            shown = "binary_f_1.000" if name == "binary_f_beta" else name
            kind_of = "loss" if shown.endswith(("se", "loss", "entropy")) else "score"
            found = value(log, f"host=algo-1, test {shown} <{kind_of}>=")
            assert found == pytest.approx(expected_test[name], rel=1e-12)


def value(log: str, mark: str) -> float:
    (line,) = [line for line in log.splitlines() if mark in line]
    return float(line.split(mark)[1])


PUBLISHED = {
    "test:rmse": r"#quality_metric: host=\S+, test rmse <loss>=(\S+)",
    "test:binary_classification_accuracy":
        r"#quality_metric: host=\S+, test binary_classification_accuracy <score>=(\S+)",
    "test:binary_classification_cross_entropy":
        r"#quality_metric: host=\S+, test binary_classification_cross_entropy <loss>=(\S+)",
    "test:binary_f_beta": r"#quality_metric: host=\S+, test binary_f_1.000 <score>=(\S+)",
    "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
    "train:throughput": r"#throughput_metric: host=\S+, train throughput=(\S+) records/second",
}  # fmt: skip


@pytest.mark.parametrize("binary", [False, True])
def test_the_published_expressions_find_their_numbers(binary, tmp_path):
    """SageMaker's tuner, its :epoch and :batch metrics, progress and throughput."""
    kind = "binary_classifier" if binary else "regressor"
    _, log = run(job(tmp_path, rows(400, binary), rows(50, binary, 3), predictor_type=kind, epochs="4"))
    names = ["binary_classification_accuracy <score>", "binary_classification_cross_entropy <loss>",
             "binary_f_1.000 <score>"] if binary else ["rmse <loss>", "mse <loss>", "absolute_loss <loss>"]  # fmt: skip
    for name, expression in PUBLISHED.items():
        if name.startswith("train:") or ("binary" in name) == binary:
            found = re.findall(expression, log)
            assert found, name
            assert all(re.fullmatch(NUMBER, one) for one in found)
    for name in names:
        shown = re.escape(name)
        assert len(re.findall(rf"#quality_metric: host=\S+, epoch=\S+, train {shown}=(\S+)", log)) == 4
        assert len(re.findall(rf"#quality_metric: host=\S+, epoch=\S+, batch=\S+ train {shown}=(\S+)", log)) == 4
        assert len(re.findall(rf"#quality_metric: host=\S+, train {shown}=(\S+)", log)) == 1
        assert len(re.findall(rf"#quality_metric: host=\S+, test {shown}=(\S+)", log)) == 1
    assert re.findall(PUBLISHED["train:progress"], log) == ["25.0", "50.0", "75.0", "100.0"]


def test_the_order_of_lines(tmp_path):
    """As a finished job of SageMaker's prints them; each with time, level and thread; metrics as JSON."""
    _, log = run(job(tmp_path, rows(300), rows(50)))
    marks = ["Docker entrypoint called with argument(s): train", "Running default environment",
             "Reading default config", "Merging with provided", "Final configuration", "Using default worker.",
             "Checkpoint loading and saving are",
             "Number of GPUs being used: 0", "Building a sparse network.",
             "Create Store: local", '"initialize.time"', '"init_train_data_iter"', "epoch=0, batch=0 train rmse",
             "epoch=0, batch=0 train mse", "epoch=0, batch=0 train absolute_loss", "epoch=0, train rmse",
             '"update.time"', "#progress_metric", '"training_data_iter"', "#throughput_metric", "algo-1, train rmse",
             "wait_for_all_workers", "Pulling entire model", '"finalize.time"', "Saved checkpoint to",
             '"test_data_iter"', "('rmse',", "('mse',",
             "('absolute_loss',", "test rmse", "test mse", "test absolute_loss", '"totaltime"']  # fmt: skip
    places = [log.index(mark) for mark in marks]
    assert places == sorted(places)
    for line in log.splitlines()[2:]:
        if line.startswith("#metrics "):
            made = json.loads(line.removeprefix("#metrics "))
            assert list(made) == ["StartTime", "EndTime", "Dimensions", "Metrics"]
            assert made["Dimensions"]["Algorithm"] == "factorization-machines"
        else:
            assert re.match(r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d (INFO|WARNING) \d+\] ", line), line


def test_counts_of_an_epoch():
    """Batches and records, in all and since the last reset."""
    counts = Counts()
    counts.add(100, 1)
    counts.reset()
    counts.add(250, 3)
    assert counts.values() == {
        "Total Records Seen": 350, "Total Batches Seen": 4, "Max Records Seen Between Resets": 250,
        "Max Batches Seen Between Resets": 3, "Reset Count": 1, "Number of Records Since Last Reset": 250,
        "Number of Batches Since Last Reset": 3,
    }  # fmt: skip


def test_a_tally_in_pieces_is_that_of_the_whole():
    """Sums over parts, and the F1 from counts over all rows."""
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=1000).astype("f"), (rng.random(1000) < 0.3).astype("f")
    for kind in ("regressor", "binary_classifier"):
        tally = Tally(kind)
        for at in range(0, 1000, 130):
            tally.add(scores[at : at + 130], labels[at : at + 130])
        expected = evaluate(scores, labels, kind)
        for name, found in tally.metrics().items():
            assert found == pytest.approx(expected[name], rel=1e-12)


def channel(root: Path, name: str = "train", mode: str = "File", **options: Any) -> Channel:
    return Channel(name, root / "input/data", mode, False, DIM, False, **options)


def quiet() -> Log:
    return Log(lambda line: None, "algo-1")


@pytest.mark.parametrize("window", [1, 300, 10_000])
@pytest.mark.parametrize("memory", [0, None])
def test_windows_and_streams_change_nothing(window, memory, tmp_path):
    """Rows held in memory or streamed from their files, in windows of one mini-batch or all: the same bits."""
    block = rows()
    job(tmp_path, block.slice(0, 700))
    source.write(block.slice(700, 1230), tmp_path / "input/data/train/part-1.pbr")
    settings_of = job_of({**BASE, "epochs": "2"})
    one = channel(tmp_path)
    assert (one.whole(memory) is None) == (memory == 0)
    done = Training(settings_of, one, one, quiet(), window=window, memory=memory).run(lambda model: None)
    expected, _ = trained(block, settings({"epochs": 2}), "sparse")
    np.testing.assert_array_equal(done.model.factors, expected.factors)
    assert done.test == pytest.approx(evaluate(score(expected, block), block.labels, "regressor"))


class Pipes:
    """Writes files into FIFOs one after the other, as SageMaker's agent does, each made when the last is done."""

    def __init__(self, folder: Path, contents: Mapping[str, bytes], slowly: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.contents, self.slowly = folder, contents, slowly
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def write(self) -> None:
        for name, content in self.contents.items():
            path = self.folder / name
            os.mkfifo(path)
            with path.open("wb", buffering=0) as stream:
                step = 1000 if self.slowly else 1 << 20
                for at in range(0, len(content), step):
                    stream.write(content[at : at + step])
                    time.sleep(0.002 if self.slowly else 0)


def as_records(block: Rows) -> bytes:
    stream = io.BytesIO()
    recordio.write(stream, block)
    return stream.getvalue()


PIPE = {name: {"TrainingInputMode": "Pipe", "S3DistributionType": "FullyReplicated"} for name in ("train", "test")}


@pytest.mark.parametrize("slowly", [False, True])
def test_pipe_mode(slowly, tmp_path):
    """Epoch e is the FIFO train_e, which may appear late and arrive in torn pieces; test is read once, at the end."""
    block, test = rows(), rows(120, seed=4)
    root = job(tmp_path, None, None, PIPE, epochs="3")
    content = as_records(block)
    contents = {**{f"train_{e}": content for e in range(3)}, "test_0": as_records(test)}
    pipes = Pipes(root / "input/data", contents, slowly)
    code, log = run(root)
    pipes.thread.join(10)
    assert (code, pipes.thread.is_alive()) == (0, False)
    expected, _ = trained(block, settings({"epochs": 3}), "sparse")
    np.testing.assert_array_equal(model_of(root).factors, expected.factors)
    rmse = evaluate(score(expected, test), test.labels, "regressor")["rmse"]
    assert value(log, "test rmse <loss>=") == pytest.approx(rmse)


def test_each_epoch_of_pipe_mode_may_bring_another_order(tmp_path):
    """SageMaker shuffles objects between epochs: what comes is trained on."""
    block = rows(300)
    other = block.take(np.arange(300)[::-1])
    root = job(tmp_path, None, None, {"train": PIPE["train"]}, epochs="2")
    Pipes(root / "input/data", {"train_0": as_records(block), "train_1": as_records(other)})
    assert run(root)[0] == 0
    same, _ = trained(block, settings({"epochs": 2}), "sparse")
    assert not np.array_equal(model_of(root).factors, same.factors)


def test_a_pipe_in_a_folders_place_is_read_once(tmp_path):
    """With one epoch it works; with more it is refused, and nothing is trained on half of the epochs."""
    block = rows(300)
    for epochs, expected in (("1", 0), ("2", 3)):
        root = job(tmp_path / epochs, None, None, {"train": {}}, epochs=epochs)
        pipes = Pipes(root / "input/data", {"train": as_records(block)})
        while not (root / "input/data/train").exists():
            time.sleep(0.01)
        code, log = run(root)
        pipes.thread.join(10)
        assert code == expected, log
        assert (root / "model/model_algo-1").exists() == (expected == 0)


def test_a_pipe_that_never_comes_is_a_fault_that_names_it(tmp_path):
    """After its patience; a stop is heeded meanwhile."""
    (tmp_path / "input/data").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has not appeared within 0\.1 s"):
        next(channel(tmp_path, mode="Pipe", patience=0.1).blocks(0))
    root = job(tmp_path, None, None, PIPE)
    assert run(root, stop=lambda: True)[0] == 143


def test_torn_records_in_a_stream_are_named(tmp_path):
    """The parser's own words, with the place."""
    content = as_records(rows(50))
    for bad, said in ((content[:-3], "ends in"), (content + b"garbage!", "no record starts"), (b"", "empty")):
        with pytest.raises(DataError, match=said):
            list(channel(tmp_path)._parsed(iter([bad]), "pipe"))


def test_a_stream_is_cut_between_whole_records():
    """However its bytes arrive: a record in parts stays together, and the numbers count on."""
    def part(flag: int, payload: bytes) -> bytes:
        head = (0xCED7230A).to_bytes(4, "little") + (flag << 29 | len(payload)).to_bytes(4, "little")
        return head + payload + bytes(-len(payload) % 4)

    whole = [recordio.frame(b"x" * n) for n in (5, 0, 900, 33)] + [part(1, b"ABCD") + part(2, b"E") + part(3, b"FGH")]
    stream = b"".join(whole * 3)
    for step in (1, 7, 64, 10_000):
        found = list(records((stream[at : at + step] for at in range(0, len(stream), step)), size=100))
        assert b"".join(content for content, _ in found) == stream
        ends = {sum(map(len, (whole * 3)[: n + 1])): n + 1 for n in range(len(whole) * 3)}
        at = 0
        for content, first in found:
            assert first == ends.get(at, 0)
            at += len(content)
            assert at in ends


def test_windows_join_and_cut():
    """Blocks of any size become windows of one; a change of layout is converted and warned of."""
    block = rows(100)
    blocks: Iterator[Rows] = iter([block.slice(0, 7), block.slice(7, 60), block.slice(60, 100)])
    found = list(windows(blocks, 30))
    assert [w.n for w in found] == [30, 30, 30, 10]
    assert concatenate(found).digest() == block.digest()
    with pytest.warns(source.DataWarning, match="dense part follows sparse"):
        mixed = list(windows(iter([block.slice(0, 50), block.slice(50, 100).to_dense()]), 30))
    assert {w.layout for w in mixed} == {"sparse"}


def test_shards_are_read_by_name_and_rubbish_is_left_out(tmp_path):
    """Folders below, in the order of names; Spark's _SUCCESS, hidden and empty files are no data."""
    block = rows(300)
    root = job(tmp_path, None, None)
    for name, part in (("b/0.pbr", block.slice(100, 300)), ("a/1.pbr", block.slice(0, 100))):
        source.write(part, root / "input/data/train" / name)
    for name in ("_SUCCESS", ".manifest", "c.empty"):
        (root / "input/data/train" / name).touch()
    found = channel(root).whole()
    assert found is not None
    assert found.digest() == block.digest()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"mini_batch_siz": "10"}, 2,
         "ClientError: Additional properties are not allowed ('mini_batch_siz' was unexpected)"),
        ({"predictor_type": "regresor"}, 2, "'regresor' is not one of"),
        ({"feature_dim": "20"}, 3, "ClientError: "),
        ({"predictor_type": "binary_classifier"}, 3, "binary_classifier wants 0 or 1"),
        ({"bias_lr": "1e30", "linear_lr": "1e30", "epochs": "20"}, 6, "AlgorithmError: diverged at epoch"),
    ],
)
def test_a_failure_says_why(change, code, said, tmp_path):
    """Non-zero exit code, whose fault and what in output/failure, at most 1024 characters; no model."""
    root = job(tmp_path, rows(200), None, None, **change)
    found, log = run(root)
    text = (root / "output/failure").read_text()
    assert (found, said in text, len(text) <= 1024) == (code, True, True)
    assert not (root / "model").exists()
    assert said.partition("ClientError: ")[2] in log


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"test": {}}, "'train' is a required property"),
        ({"train": {}, "validation": {}}, "('validation' was unexpected)"),
        ({"train": {"TrainingInputMode": "Fifo"}}, "'Fifo' is not one of ['File', 'FastFile', 'Pipe']"),
        ({"train": {"ContentType": "text/csv"}}, "No iterator has been registered for ContentType 'text/csv'"),
        ([], "not a JSON object"),
    ],
)
def test_channels_that_are_none(config, said, tmp_path):
    """Checked before any data are read."""
    root = job(tmp_path, rows(200), None, config)
    assert run(root)[0] == 2
    assert said in (root / "output/failure").read_text()


def test_what_is_no_json_or_missing(tmp_path):
    """hyperparameters.json is needed; broken JSON is said with its place."""
    assert run(tmp_path / "empty")[0] == 2
    root = job(tmp_path, rows(100))
    (root / "input/config/hyperparameters.json").write_text("{")
    assert run(root)[0] == 2
    assert "not readable JSON" in (root / "output/failure").read_text()


def test_a_stop_saves_the_model_as_it_stands(tmp_path):
    """After the first windows of the second epoch: exit code 143, a model that predicts, no test scores."""
    asked = iter([False, False, True])
    code, log = run(job(tmp_path, rows(), rows(50), epochs="9"), stop=lambda: next(asked))
    assert code == 143
    assert "test rmse" not in log
    expected, _ = trained(rows(), settings({"epochs": 2}), "sparse")
    np.testing.assert_array_equal(model_of(tmp_path).factors, expected.factors)


def test_sigterm_stops_a_job(tmp_path):
    """A process that gets SIGTERM while it trains ends by itself with the model saved."""
    root = job(tmp_path, rows(5000), epochs="1000000")
    words = "import sys; from fmtune.sagemaker.verbs import train; sys.exit(train(sys.argv[1]))"
    with Limited([sys.executable, "-c", words, str(root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch=3," in line:
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
        assert process.wait(60) == 143
    assert model_of(root).num_factors == 4


def test_use_bias_and_use_linear(tmp_path):
    """Off, these weights stay 0, and the artifact says so."""
    assert run(job(tmp_path, rows(300), use_bias="false", use_linear="False"))[0] == 0
    found = model_of(tmp_path)
    assert (found.bias, found.linear.any()) == (0.0, False)
    assert found.facts["sagemaker"]["training_parameters"]["use_bias"] == "false"


def test_without_compat_it_trains_as_fmtune_does(tmp_path):
    """Shuffled once and not padded; an order that a stream cannot have is refused."""
    block = rows()
    assert run(job(tmp_path, block, sagemaker_compat="false", epochs="2"))[0] == 0
    expected, _ = trained(block, settings({"epochs": 2, "shuffle": "once", "pad_last_batch": False}), "sparse")
    np.testing.assert_array_equal(model_of(tmp_path).factors, expected.factors)
    root = job(tmp_path / "pipe", None, None, {"train": PIPE["train"]}, shuffle="once")
    pipes = Pipes(root / "input/data", {"train_0": as_records(rows(100))})
    assert run(root)[0] == 2
    pipes.thread.join(10)
    assert "the train channel is a stream" in (root / "output/failure").read_text()


def test_the_folder_that_sagemaker_packs(tmp_path):
    """opt/ml/model holds model_algo-1 and nothing else; packed, it is SageMaker's model.tar.gz."""
    assert run(job(tmp_path, rows(200)))[0] == 0
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model_algo-1"]
    words = ["tar", "-C", tmp_path / "model", "-czf", tmp_path / "model.tar.gz", "model_algo-1"]
    subprocess.run(words, check=True, timeout=60)
    found = import_artifact(tmp_path / "model.tar.gz")
    np.testing.assert_array_equal(found.factors, model_of(tmp_path).factors)
    assert found.facts["sagemaker"]["training_parameters"]["mini_batch_size"] == "100"


def test_a_failure_that_cannot_be_written_is_still_an_exit_code(tmp_path):
    """A read-only output folder does not hide the error."""
    (tmp_path / "output").write_text("in the way")
    container = Container(tmp_path)
    assert container.fail(ValueError("x")) == "AlgorithmError: ValueError: x"
