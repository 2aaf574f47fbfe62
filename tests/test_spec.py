"""fmtune.tune.spec: a sound study file becomes a Spec; whatever is wrong is said all at once, at its place."""

from pathlib import Path

import pytest

from fmtune.errors import StudyFileError, UsageError
from fmtune.fm.hyperparameters import meant
from fmtune.tune import spec
from fmtune.tune.dimension import Dimension
from fmtune.tune.spec import Cell, Spec, parse
from fmtune.tune.studyfile import worded

GOOD = """\
study_name: digits
data: {train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}
objective: test:binary_classification_cross_entropy
hyperparameters:
  epochs: 30
search_space:
  num_factors: 2..32 log
  optimizer: [adam, adagrad]
n_trials: 64
"""


def faults_of(text: str) -> list[str]:
    """Return the first line of each fault."""
    with pytest.raises(StudyFileError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    for fault in caught.value.faults:
        assert str(fault).splitlines()[0] in str(caught.value)
    return [str(fault).splitlines()[0].removeprefix("study.yaml:") for fault in caught.value.faults]


def test_a_study_becomes_a_spec() -> None:
    """Defaults filled in, the predictor type implied, values typed."""
    made = parse(GOOD, "studies/x.yaml")
    assert made.hyperparameters == {"epochs": 30, "predictor_type": "binary_classifier"}
    assert made.search_space == {
        "num_factors": Dimension("int", 2, 32, log=True),
        "optimizer": Dimension("categorical", choices=("adam", "adagrad")),
    }
    assert (made.n_trials, made.timeout, made.seeds, made.seed, made.lag, made.pack) == (64, None, 1, 0, None, "auto")
    assert (made.sampler.name, made.pruner.name, made.storage, made.threads) == ("tpe", "median", None, None)
    assert (made.metric, made.direction, made.predictor_type) == (
        "binary_classification_cross_entropy", "minimize", "binary_classifier")  # fmt: skip
    assert made.matrix.cells == (Cell("cpu", "sparse"),)
    assert made.text == GOOD


def test_paths_start_at_the_study_files_folder() -> None:
    """As written in the spec; resolved on demand; absolute ones stay."""
    made = parse(GOOD, "studies/x.yaml")
    assert made.data.train == ("a.libsvm", "b/*.libsvm")
    assert made.data.paths("train", made.path) == (Path("studies/a.libsvm"), Path("studies/b/*.libsvm"))
    assert made.data.paths("test", made.path) == (Path("/data/t.libsvm"),)
    assert made.data.paths("holdout", made.path) is None


def test_every_key_is_read() -> None:
    """Each key with a value that is not its default."""
    made = parse(GOOD.replace("64", "7") + """
timeout: 1h30m
storage: sqlite:///x.db
matrix: {device: [gpu, cpu], layout: [sparse, dense]}
enqueue: [{num_factors: 4}, {optimizer: adagrad, num_factors: 32}]
seeds: 3
seed: 9
lag: 0
pack: 8
memory: 1.5GiB
threads: 2
sampler: {name: TPESampler, n_startup_trials: 5}
pruner: {name: patient, patience: 2, wrapped_pruner: MedianPruner}
""")
    assert (made.n_trials, made.timeout, made.storage) == (7, 5400.0, "sqlite:///x.db")
    assert [cell.name for cell in made.matrix.cells] == ["gpu-sparse", "gpu-dense", "cpu-sparse", "cpu-dense"]
    assert made.enqueue == ({"num_factors": 4}, {"optimizer": "adagrad", "num_factors": 32})
    assert (made.seeds, made.seed, made.lag, made.pack, made.threads) == (3, 9, 0, 8, 2)
    assert (made.memory, parse(GOOD).memory, parse(GOOD + "memory:\n").memory) == (1.5 * 2**30, None, None)
    assert made.sampler.model_dump() == {"name": "tpe", "options": {"n_startup_trials": 5}}
    assert made.pruner.model_dump() == {
        "name": "patient", "options": {"patience": 2, "wrapped_pruner": {"name": "median"}}}  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("1h30m", 5400), ("45s", 45), ("90", 90), ("1.5h", 5400)])
def test_a_timeout_has_units(text: str, seconds: float) -> None:
    """Hours, minutes and seconds, or a number of seconds."""
    assert parse(GOOD + f"timeout: {text}\n").timeout == seconds


def test_data_can_be_a_card_with_keys() -> None:
    """The name alone, or a mapping with keys of the card."""
    given = "data: {train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}"
    assert parse(GOOD.replace(given, "data: digits")).data.card == "digits"
    assert parse(GOOD.replace(given, "data: {card: digits, split: 3}")).data.keys == {"split": 3}


def test_data_can_be_a_table() -> None:
    """Its columns and its division stand beside its path."""
    given = "data: {train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}"
    keys = "label: y, categorical: [a, b], numeric: c, min_count: 2"
    made = parse(GOOD.replace(given, f"data: {{train: t.csv, test: 0.1, {keys}, by: time, split_seed: 1}}")).data
    assert (made.train, made.test) == (("t.csv",), None) and made.split == {"test": 0.1, "by": "time", "seed": 1}
    assert made.columns == {"label": "y", "categorical": ("a", "b"), "numeric": ("c",), "min_count": 2}
    whole = parse(GOOD.replace(given, f"data: {{train: t.csv, test: u.csv, {keys}}}")).data
    assert whole.test == ("u.csv",) and whole.split == {}


def test_a_spec_shows_no_password() -> None:
    """Neither the storage nor the text of the file is in its repr."""
    made = parse(GOOD + "storage: mysql://me:s3cret@host/db\n")
    assert "s3cret" not in repr(made)


# What is changed in GOOD (old, new), and the one fault that it makes.
ONE: dict[str, tuple[str, str, str]] = {
    "missing key": ("objective: test:binary_classification_cross_entropy\n", "", "1:1: the key 'objective' is missing"),
    "unknown key": ("n_trials", "n_trails", "9:1: unknown key 'n_trails' (did you mean 'n_trials'?)"),
    "unknown parameter": ("num_factors", "num_factros",
                          "7:3: unknown parameter 'num_factros' (did you mean 'num_factors'?)"),
    "duplicate key": ("n_trials: 64", "study_name: b",
                      "9:1: the key 'study_name' is here a second time; the first is in line 1"),
    "number in quotes": ("64", "'64'", "9:11: n_trials must be a whole number, not '64'"),
    "hyperparameter in quotes": ("30", '"30"', "5:11: epochs must be a whole number, not '30'"),
    "low above high": ("2..32", "32..2", "7:16: low 32 of num_factors is not below high 2"),
    "log from zero": ("2..32", "0..32", "7:16: a log range starts above 0; low of num_factors is 0"),
    "parameter out of range": ("epochs: 30", "epochs: 0", "5:11: epochs must be at least 1, not 0"),
    "parameter of wrong kind": ("epochs: 30", "use_bias: yes", "5:13: use_bias must be true or false, not 'yes'"),
    "no trials": ("64", "0", "9:11: n_trials must be at least 1, not 0"),
    "trials in parts": ("64", "6.4", "9:11: n_trials must be a whole number, not 6.4"),
    "markup in the name": ("study_name: digits", "study_name: </script>", "1:13: study_name cannot be '</script>'"),
    "path in the name": ("study_name: digits", "study_name: ../../x", "1:13: study_name cannot be '../../x'"),
    "dot name": ("study_name: digits", "study_name: .x", "1:13: study_name cannot be '.x'"),
    "option as name": ("study_name: digits", "study_name: -rf", "1:13: study_name cannot be '-rf'"),
    "long name": ("study_name: digits", "study_name: " + "x" * 10_000,
                  "1:13: study_name has 10000 characters; 100 is the most"),
    "name of lines": ("study_name: digits", 'study_name: "a\\nb"', "1:13: study_name cannot be 'a\\nb'"),
    "name as number": ("study_name: digits", "study_name: 5", "1:13: study_name must be text, not 5"),
    "unknown objective": ("test:binary_classification_cross_entropy", "test:rsme",
                          "3:12: unknown objective 'test:rsme' (did you mean 'test:rmse'?)"),
    "bare objective": ("test:binary_classification_cross_entropy", "auc",
                       "3:12: unknown objective 'auc' (did you mean 'test:auc'?)"),
    "predictor type": ("epochs: 30\n", "predictor_type: regressor\n", "5:19: test:binary_classification_cross_entropy"
                       " is for a binary_classifier, not for a regressor"),
    "searched seed": ("optimizer: [adam, adagrad]", "seed: 0..9",
                      "8:3: seed is not searched; 'seeds: 3' trains every trial with three seeds"),
    "searched predictor type": ("optimizer: [adam, adagrad]", "predictor_type: [regressor, binary_classifier]",
                                "8:3: predictor_type follows from the objective and is not searched"),
    "fixed seed": ("epochs: 30", "seed: 3", "5:3: seed is the study's, not a hyperparameter"),
    "fixed and searched": ("epochs: 30", "num_factors: 4",
                           "7:3: num_factors is both fixed under hyperparameters and searched here"),
    "nothing searched": ("  num_factors: 2..32 log\n  optimizer: [adam, adagrad]\n", "", "6:1: search_space is empty"),
    "no test channel": (", test: /data/t.libsvm", "", "2:1: the objective needs a test channel, and data has none"),
    "no train channel": ("train: [a.libsvm, b/*.libsvm], ", "", "2:1: data has no train channel"),
    "unknown channel": ("test: /d", "tets: x, test: /d", "2:39: unknown key 'tets' (did you mean 'test'?)"),
    "channel of numbers": ("/data/t.libsvm", "[3]", "2:46: test must be a path or a list of paths, not 3"),
    "empty channel": ("/data/t.libsvm", "[]", "2:45: test is an empty list"),
    "feature_dim": ("test: /d", "feature_dim: 0, test: /d",
                    "2:52: feature_dim must be a whole number of at least 1, not 0"),
    "unknown card": ("{train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}", "digit",
                     "2:7: unknown dataset card 'digit' (did you mean 'digits'?)"),
    "unknown card key": ("{train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}", "{card: digits, splt: 3}",
                         "2:22: the card digits has no key 'splt' (did you mean 'split'?)"),
    "card key of wrong type": ("{train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}", "{card: digits, split: '3'}",
                               "2:29: split must be a whole number, not '3'"),
    "long path": ("/data/t.libsvm", "x" * 5000, "2:45: a path of 5000 characters; 4096 is the most"),
    "share without label": ("/data/t.libsvm", "0.1", "2:39: test is of a table, and no label is named"),
    "column without label": ("test: /d", "numeric: a, test: /d",
                             "2:39: numeric is of a table, and no label is named"),
    "column named twice": ("test: /d", "label: a, numeric: [a], test: /d", "2:1: the column 'a' is named twice"),
    "column of numbers": ("test: /d", "label: a, numeric: [1], test: /d", "2:58: numeric must be text, not 1"),
    "too large a share": ("/data/t.libsvm", "1.5, label: a", "2:1: test is 1.5"),
    "split of nothing": ("test: /d", "label: a, by: b, test: /d",
                         "2:49: by divides nothing: neither test nor holdout is a share"),
    "width of a table": ("test: /d", "label: a, feature_dim: 9, test: /d",
                         "2:49: a table's features are its columns' own"),
    "enqueued beyond the budget": ("n_trials: 64", "n_trials: 1\nenqueue: [{num_factors: 4}, {num_factors: 8}]",
                                   "10:29: 2 configurations are enqueued for 1 trial"),
    "no data": ("{train: [a.libsvm, b/*.libsvm], test: /data/t.libsvm}", "7",
                "2:7: data must be a card or channels, not 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_fault_is_one_line_at_its_place(name: str) -> None:
    """path:line:column, what is wrong, and nothing else."""
    old, new, wanted = ONE[name]
    assert old in GOOD
    assert faults_of(GOOD.replace(old, new, 1)) == [wanted]


# A line put below GOOD, and the one fault that it makes.
BELOW: dict[str, str] = {
    "timeout: 20 minutes": "10:10: timeout must be a time, not '20 minutes'",
    "timeout: 0": "10:10: timeout must be above 0 and below 30 years",
    "timeout: true": "10:10: timeout must be a time, not true",
    "pack: 300": "10:7: pack must be auto or a whole number from 1 to 256, not 300",
    "pack: full": "10:7: pack must be auto or a whole number from 1 to 256, not 'full'",
    "memory: 4 gigs": "10:9: memory must be an amount, not '4 gigs'",
    "memory: '4000000000'": "10:9: memory must be an amount, not '4000000000'",
    "memory: 4096": "10:9: memory must be at least 1MiB and below 8EiB, not 4096",
    "seeds: 0": "10:8: seeds must be at least 1, not 0",
    "seeds: 101": "10:8: seeds must be at most 100, not 101",
    "lag: -1": "10:6: lag must be at least 0, not -1",
    "seed: 1.5": "10:7: seed must be a whole number, not 1.5",
    "seed: true": "10:7: seed must be a whole number, not true",
    "threads: 0": "10:10: threads must be at least 1, not 0",
    "storage: me:pw@host": "10:10: storage must be a database URL",
    "num_factors: 4": "10:1: unknown key 'num_factors'",
    "matrix: {device: [cpu, tpu]}": "10:18: unknown device 'tpu' (did you mean 'gpu'?)",
    "matrix: {device: [cpu, cpu]}": "10:18: device has a value twice: cpu, cpu",
    "matrix: {layout: []}": "10:18: layout is an empty list",
    "matrix: {layuot: dense}": "10:10: unknown key 'layuot' (did you mean 'layout'?)",
    "matrix: 3": "10:9: matrix must be a mapping of keys, not 3",
    "sampler: tpee": "10:10: unknown sampler 'tpee' (did you mean 'tpe'?)",
    "sampler: MedianPruner": "10:10: unknown sampler 'MedianPruner'",
    "sampler: PartialFixedSampler":
        "10:10: PartialFixedSampler cannot be used as a sampler: fixed values stand under hyperparameters",
    "sampler: [tpe]": "10:10: sampler must be a name or a mapping with name, not ['tpe']",
    "sampler: {n_startup_trials: 3}": "10:10: sampler has no name",
    "sampler: {name: tpe, n_startup: 3}":
        "10:22: TPESampler has no option 'n_startup' (did you mean 'n_startup_trials'?)",
    "sampler: {name: tpe, seed: 3}": "10:22: TPESampler has no option 'seed'",
    "sampler: {name: tpe, n_startup_trials: '3'}": "10:40: n_startup_trials must be a whole number, not '3'",
    "sampler: {name: tpe, n_startup_trials: -3}": "10:40: n_startup_trials must be at least 0, not -3",
    "sampler: {name: tpe, constant_liar: 1}": "10:37: constant_liar must be true or false, not 1",
    "sampler: {name: tpe, group: true, multivariate: false}": "10:29: group needs multivariate: true",
    "sampler: {name: qmc, qmc_type: sobel}": "10:32: qmc_type must be one of sobol, halton, not 'sobel'",
    "sampler: {name: nsgaii, crossover_prob: 1.5}": "10:41: crossover_prob must be at most 1, not 1.5",
    "pruner: medain": "10:9: unknown pruner 'medain' (did you mean 'median'?)",
    "pruner: percentile": "10:9: percentile needs the option percentile",
    "pruner: threshold": "10:9: threshold needs the option lower or upper, or both",
    "pruner: {name: threshold, lower: 2, upper: 1}": "10:34: lower is above upper",
    "pruner: {name: hyperband, max_resource: much}":
        "10:41: max_resource must be a whole number or auto, not 'much'",
    "pruner: {name: hyperband, min_resource: 9, max_resource: 3}": "10:58: max_resource is below min_resource",
    "pruner: {name: patient, patience: 1, wrapped_pruner: meridian}":
        "10:54: unknown pruner 'meridian' (did you mean 'median'?)",
    "enqueue: [{num_factors: 64}]": "10:25: num_factors 64 is not in its search space, 2..32 log",
    "enqueue: [{optimizer: adm}]":
        "10:23: optimizer must be one of adam, adagrad, sgd, ftrl, rowwise_adagrad, not 'adm' (did you mean 'adam'?)",
    "enqueue: [{num_factros: 4}]": "10:12: unknown parameter 'num_factros' (did you mean 'num_factors'?)",
    "enqueue: [{epochs: 4}]": "10:12: epochs is fixed under hyperparameters and cannot be enqueued",
    "enqueue: [{eps: 4}]": "10:12: eps is not in search_space",
    "enqueue: [{}]": "10:11: an enqueued configuration is empty",
    "enqueue: [4]": "10:11: a configuration is a mapping of parameters to values, not 4",
    "enqueue: 3": "10:10: enqueue must be a list, not 3",
    "cluster: {worker: 2}": "10:11: unknown key 'worker' (did you mean 'workers'?)",
    "cluster: {exchange: fp8}": "10:21: cluster.exchange must be 'fp32' or 'fp16', not 'fp8'",
    "cluster: {parts: 0}": "10:18: cluster.parts must be at least 1, not 0",
}  # fmt: skip


@pytest.mark.parametrize(("line", "hint"), [
    ("device: gpu", "write matrix: {device: [gpu]}"), ("device: {a: 1}", "device belongs under matrix"),
    ("layout: [sparse, dense]", "write matrix: {layout: [sparse, dense]}"),
    ("num_factors: 4", "num_factors belongs under hyperparameters or search_space"),
])  # fmt: skip
def test_a_key_of_another_place_is_told_where(line: str, hint: str) -> None:
    """What belongs under matrix, hyperparameters or search_space, and stands at the top level."""
    with pytest.raises(StudyFileError) as caught:
        parse(GOOD + line + "\n")
    (fault,) = caught.value.faults
    assert fault.hint == hint


def test_a_name_of_another_library_is_told_ours() -> None:
    """Where one name means two of ours, both are said; where one of them is not searched, the other."""
    text = GOOD.replace("num_factors", "learning_rate")
    assert faults_of(text)[0].endswith("unknown parameter 'learning_rate' (did you mean 'linear_lr' or 'factors_lr'?)")
    assert meant("batch_size") == " (did you mean 'mini_batch_size'?)" and meant("zzz") == ""
    assert meant("lr", ("factors_lr",)) == " (did you mean 'factors_lr'?)"


@pytest.mark.parametrize("line", BELOW)
def test_a_wrong_line_below_is_one_fault(line: str) -> None:
    """Shapes, ranges, names and options of the rest of the file."""
    assert faults_of(GOOD + line + "\n") == [BELOW[line]]


def test_a_sampler_that_walks_needs_dimensions_that_can_be_listed() -> None:
    """A float without step cannot; nor can there be more trials than combinations."""
    grid = GOOD + "sampler: grid\n"
    assert faults_of(grid) == ["9:11: there are 62 combinations for 64 trials"]
    assert parse(grid + "enqueue: [{num_factors: 4}, {num_factors: 8}]\n").n_trials == 64
    endless = grid.replace("num_factors: 2..32 log", "linear_lr: 0..1")
    assert faults_of(endless) == ["7:14: the grid sampler needs a step or choices for linear_lr"]
    large = grid.replace("num_factors: 2..32", "num_factors: 1..65536")
    assert faults_of(large) == ["10:10: 131072 combinations are too many to walk over; 100000 is the most"]


def test_all_faults_are_reported_at_once() -> None:
    """YAML's, the shape's, the relations'; in the order of the file; one message."""
    text = """\
study_name: ../x
data: {train: a}
objective: test:rmsee
hyperparameters:
  epochs: "30"
  epochs: 3
  linear_lr: -1
search_space:
  num_factros: 2..32
  bias_lr: 0..1 log
  optimizer: [adam, adm]
n_trials: many
pruner: meridian
extra: 1
enqueue: [{bias_wd: 3}]
"""
    assert [fault.split(": ")[0] for fault in faults_of(text)] == [
        "1:13", "2:1", "3:12", "5:11", "6:3", "7:14", "9:3", "10:12", "11:21", "12:11", "13:9", "14:1", "15:12",
    ]  # fmt: skip


def test_a_fault_is_shown_with_its_line_a_caret_and_a_hint() -> None:
    """The whole text of one, as a person sees it."""
    with pytest.raises(StudyFileError) as caught:
        parse(GOOD.replace("64", "'64'"))
    assert str(caught.value) == (
        "study.yaml:9:11: n_trials must be a whole number, not '64'\n"
        "   9 | n_trials: '64'\n"
        "     |           ^^^^\n"
        "  hint: remove the quotes"
    )


def test_long_and_hostile_values_are_shown_short() -> None:
    """Ten kilobytes, escape codes and passwords stay out of messages."""
    for line in ("sampler: " + "x" * 10_000, 'sampler: "\\e[31m"', "storage: [mysql://me:s3cret@host/db]"):
        with pytest.raises(StudyFileError) as caught:
            parse(GOOD + line + "\n")
        text = str(caught.value)
        assert max(map(len, text.splitlines())) < 350
        assert "\x1b" not in text
        assert "s3cret" not in text


def test_what_is_no_mapping_is_no_study() -> None:
    """An empty file, a list, a text."""
    assert "the file is empty" in _first("")
    assert "the file is empty" in _first("# nothing\n")
    assert "a study is a mapping of keys, not ['a']" in _first("- a\n")


def test_empty_sections_are_as_if_left_out() -> None:
    """All their lines may be commented out."""
    text = GOOD.replace("  epochs: 30\n", "  # epochs: 30\n") + "enqueue:\nmatrix:\ntimeout:\n"
    assert parse(text).hyperparameters == {"predictor_type": "binary_classifier"}


def test_a_file_is_read_with_its_own_name(tmp_path: Path) -> None:
    """Messages begin with the path as it was given; the path is kept."""
    path = tmp_path / "s.yaml"
    path.write_text(GOOD)
    assert isinstance(spec.read(path), Spec)
    assert spec.read(str(path)).path == path
    path.write_text(GOOD + "x: 1\n")
    with pytest.raises(StudyFileError) as caught:
        spec.read(path)
    assert caught.value.where == f"{path}:10:1"


def _first(text: str) -> str:
    with pytest.raises(StudyFileError) as caught:
        parse(text)
    return str(caught.value)


def test_a_name_that_is_wrong_in_the_space_is_not_reported_again_where_it_is_enqueued() -> None:
    """One slip, one fault."""
    text = GOOD.replace("num_factors", "num_factros") + "enqueue: [{num_factros: 4}]\n"
    assert faults_of(text) == ["7:3: unknown parameter 'num_factros' (did you mean 'num_factors'?)"]


SWEEP = """\
study_name: s
data: {card: planted-clicks, rows: 2000}
objective: test:binary_classification_cross_entropy
search_space: {factors_lr: 1e-3..1 log}
sweep: {features: [256, 1024], fields: [2, 8]}
"""


def test_a_sweep_is_a_study_for_each_combination() -> None:
    """Each member has its own name and keys, and is a plain study; without a sweep a study is its own member."""
    spec = parse(SWEEP)
    members = spec.members()
    assert [m.study_name for m in members][:2] == ["s.features-256.fields-2", "s.features-256.fields-8"]
    assert members[3].data.keys == {"rows": 2000, "features": 1024, "fields": 8} and members[3].sweep == {}
    assert members[0].members() == (members[0],)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sweep: {feature: [2]}", "5:9: the card planted-clicks has no key 'feature' (did you mean 'features'?)"),
        ("sweep: {features: []}", "features is an empty list"),
        ("sweep: {fields: [2, 0]}", "study.yaml:5:21: fields"),
    ],
)
def test_a_sweep_takes_what_the_card_takes(line: str, said: str) -> None:
    """An unknown key, no values, and a value out of range are named at their place."""
    with pytest.raises(StudyFileError) as caught:
        parse(SWEEP.replace("sweep: {features: [256, 1024], fields: [2, 8]}", line))
    assert said in str(caught.value)


def test_the_solvers_are_those_that_are_searched() -> None:
    """Or the one that is fixed, or the default."""
    assert parse(GOOD).solvers == ("sgd",)
    swept = GOOD.replace("epochs: 30", "solver: als").replace("optimizer: [adam, adagrad]", "linear_wd: 0..1")
    assert parse(swept).solvers == ("als",)
    assert parse(GOOD.replace("optimizer: [adam, adagrad]", "solver: [sgd, als]")).solvers == ("sgd", "als")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("grace: 0.5s", "10:8: grace must be a second at least"),
        ("grace: soon", "10:8: grace must be a time, not 'soon'"),
        ("stall: 0", "10:8: stall must be above 0 and below 30 years"),
        ("groups: 7", "10:9: groups must be a mapping or a list, not 7"),
        ("groups: [3, 1]", "10:9: "),
        ("3: x", "10:1: unknown key '3'"),
    ],
)
def test_times_groups_and_keys_are_checked(line: str, said: str) -> None:
    """Each at its place."""
    assert faults_of(GOOD + line + "\n")[0].startswith(said)
    assert parse(GOOD + "groups:\n").groups is None
    made = parse(GOOD + "grace: 2s\nstall: 1h\ngroups: {user: 0, item: 3}\n")
    assert (made.grace, made.stall) == (2.0, 3600.0) and made.groups == {"user": 0, "item": 3}
    assert (parse(GOOD).stall, parse(GOOD + "stall:\n").stall) == (1800.0, None)


def test_a_fault_without_words_of_ours_is_said_in_pydantics() -> None:
    """At its place; a newer pydantic may find what this one does not."""
    found = worded({"type": "new", "loc": ("matrix", "device"), "msg": "is odd", "input": 7})
    assert (found.at, found.what) == (("matrix", "device"), "matrix.device: is odd")


def test_a_cluster_is_an_address_or_a_mapping() -> None:
    """The address alone leaves everything else as it is."""
    short, whole = (parse(GOOD + f"cluster: {given}\n").cluster for given in ("head:6379", "{address: head:6379}"))
    assert short == whole and short is not None
    assert (short.address, short.workers, short.exchange, short.checkpoints) == ("head:6379", 2, "fp32", None)
    faults = faults_of(GOOD + "cluster: auto\nmatrix: {layout: dense}\n")
    assert faults == ["11:1: a cluster trains on CPUs and on sparse rows"]
    unpacked = "11:1: a cluster trains one model at a time, and no packs"
    assert faults_of(GOOD + "cluster: auto\nmemory: 4GiB\n") == [unpacked]


def test_memory_may_be_given_for_one_machine() -> None:
    """As a study file has it; the rest stays; a cluster has none."""
    made = parse(GOOD + "memory: 1GiB\n")
    assert made.within("4GiB") == made.model_copy(update={"memory": 2**32})
    with pytest.raises(UsageError, match="memory must be an amount, not 'much'"):
        made.within("much")
    with pytest.raises(UsageError, match="a cluster trains one model at a time"):
        parse(GOOD + "cluster: auto\n").within("4GiB")


def test_every_fault_is_shown_with_its_line_and_its_next_step() -> None:
    """Those of the tables above, each as a terminal shows it: specimens/study_faults.txt, word for word."""
    texts = {name: GOOD.replace(old, new, 1) for name, (old, new, _) in ONE.items()}
    texts |= {line: GOOD + line + "\n" for line in BELOW}
    shown = ""
    for name, text in texts.items():
        with pytest.raises(StudyFileError) as caught:
            parse(text)
        shown += f"## {name}\n{caught.value}\n\n"
    assert shown == (Path(__file__).parent / "specimens" / "study_faults.txt").read_text()
