"""Checks: what a study file's values must be to each other, part by part.

Each check takes plain values and returns what it made of them and all that is wrong, so that one run over a
file finds every fault.  A part that is wrong in itself is left out of the checks that need it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from fmtune.cluster.layout import BOUND, unfit
from fmtune.data.catalog import Card
from fmtune.data.columns import MOST_BITS, Columns
from fmtune.data.split import Split
from fmtune.errors import UsageError
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters, Value, check, meant
from fmtune.fm.metrics import METRICS
from fmtune.tune.algorithms import ELSEWHERE, PRUNERS, Algorithm, Option, card_option, names, short_name
from fmtune.tune.dimension import FIXED, SEARCHABLE, Dimension, parse
from fmtune.tune.places import Wrong, shown, suggestion
from fmtune.tune.yamlfile import unquoted

SETTABLE = tuple(name for name in PARAMETERS if name != "seed")
MAX_GRID = 100_000
SHARED = ("test", "holdout")
LISTS = ("categorical", "multivalued", "numeric", "bucketed")
_SPLIT = {"by": "by", "group": "group", "split_seed": "seed"}
TABLE: dict[str, Option] = {
    "label": Option(str, help="the label's column; it says that train is a table"),
    "categorical": Option(str, help="columns that name something"),
    "multivalued": Option(str, help="columns whose cells hold several names"),
    "separator": Option(str, help="what stands between them; | if not given"),
    "numeric": Option(str, help="columns of numbers, scaled"),
    "bucketed": Option(str, help="columns of numbers, cut into ranges"),
    "buckets": Option(int, 2, 65536, help="how many ranges; 16 if not given"),
    "min_count": Option(int, 1, help="values seen fewer times share one feature"),
    "hash_bits": Option(int, 1, MOST_BITS, help="hash names into 2^n features; no vocabulary is kept"),
    "by": Option(str, help="divide by time: the newest rows are tested"),
    "group": Option(str, help="keep rows with the same cell in one channel"),
    "split_seed": Option(int, 0, help="of a division by chance or by group"),
}
"""Keys of a table, below ``data``."""
EXHAUSTIVE = ("grid", "brute_force")


def hyperparameters(raw: Mapping[str, Any], keys: Collection[str]) -> tuple[dict[str, Value], list[Wrong]]:
    """Return the fixed values, checked one by one; ``keys`` are the study file's own, for advice."""
    made: dict[str, Value] = {}
    wrong: list[Wrong] = []
    for name, value in raw.items():
        if name == "seed":
            hint = "write 'seed: 1' at the top level, and 'seeds: 3' for three seeds a trial"
            wrong.append(Wrong((name,), "seed is the study's, not a hyperparameter", hint, key=True))
        elif name not in PARAMETERS:
            wrong.append(_unknown(name, SETTABLE, keys))
        else:
            made_value, fault = _value(name, value)
            if fault:
                wrong.append(fault)
            else:
                made[name] = made_value
    return made, wrong


def search_space(raw: Mapping[str, Any], fixed: Mapping[str, Any],
                 keys: Collection[str]) -> tuple[dict[str, Dimension], list[Wrong]]:
    """Return the searched dimensions; ``fixed`` are the hyperparameters of the same file."""
    made: dict[str, Dimension] = {}
    wrong: list[Wrong] = []
    if not raw:
        hint = "give one parameter or more, such as 'num_factors: 2..32 log'"
        wrong.append(Wrong((), "search_space is empty", hint, key=True))
    for name, value in raw.items():
        if name in FIXED:
            wrong.append(Wrong((name,), FIXED[name], key=True))
            continue
        if name not in PARAMETERS:
            wrong.append(_unknown(name, SEARCHABLE, keys))
            continue
        dimension, faults = parse(name, value)
        wrong += [fault.under(name) for fault in faults]
        if name in fixed:
            wrong.append(Wrong((name,), f"{name} is both fixed under hyperparameters and searched here",
                               "leave one of them out", key=True))
        if dimension is not None:
            made[name] = dimension
    return made, wrong


def predictor_type(objective: str, fixed: Mapping[str, Any]) -> tuple[str, list[Wrong]]:
    """Return the predictor type that an objective implies; one given under hyperparameters must agree."""
    implied = METRICS[objective.removeprefix("test:")].predictor_type
    given = fixed.get("predictor_type", implied)
    if given == implied:
        return implied, []
    what = f"{objective} is for a {implied}, not for a {given}"
    return implied, [Wrong(("hyperparameters", "predictor_type"), what, "leave predictor_type out")]


def enqueue(raw: list[Any], space: Mapping[str, Dimension], searched: Collection[str],
            fixed: Mapping[str, Any]) -> tuple[tuple[dict[str, Value], ...], list[Wrong]]:
    """Return the configurations to try first; ``searched`` are all names of the space, ``space`` the sound ones."""
    made: list[dict[str, Value]] = []
    wrong: list[Wrong] = []
    for i, entry in enumerate(raw):
        if not isinstance(entry, dict) or not entry:
            what = f"a configuration is a mapping of parameters to values, not {shown(entry)}"
            wrong.append(Wrong((i,), "an enqueued configuration is empty" if entry == {} else what))
            continue
        made.append({})
        for name, raw_value in entry.items():
            if name not in searched:
                wrong.append(_not_searched(name, searched, fixed).under(i))
                continue
            if name not in SEARCHABLE:
                continue  # search_space has been told
            value, fault = _value(name, raw_value)
            if fault:
                wrong.append(fault.under(i))
            elif name in space and not space[name].holds(value):
                what = f"{name} {shown(value)} is not in its search space, {space[name]}"
                wrong.append(Wrong((i, name), what))
            made[-1][name] = value
    return tuple(made), wrong


def queued(entries: int, n_trials: int) -> Iterator[Wrong]:
    """Yield the first enqueued configuration that would never be tried."""
    if entries > n_trials:
        what = f"{entries} configurations are enqueued for {n_trials} trial{'s' if n_trials > 1 else ''}"
        yield Wrong((n_trials,), what, f"write n_trials: {entries}, or more")


def algorithm(raw: Any, table: Mapping[str, Algorithm], kind: str) -> tuple[str, dict[str, Any], list[Wrong]]:
    """Return short name and options of a sampler or pruner, given as a name or a mapping with ``name``."""
    known = dict(table)
    entry = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, dict):
        return "", {}, [Wrong((), f"{kind} must be a name or a mapping with name, not {shown(raw)}")]
    at = () if isinstance(raw, str) else ("name",)
    name = entry.get("name")
    short = short_name(known, name) if isinstance(name, str) else None
    if short is None:
        if "name" not in entry:
            return "", {}, [Wrong((), f"{kind} has no name", f"write name: {next(iter(table))}")]
        if isinstance(name, str) and name in ELSEWHERE:
            return "", {}, [Wrong(at, f"{name} cannot be used as a {kind}: {ELSEWHERE[name]}")]
        near = suggestion(name, names(known)) if isinstance(name, str) else ""
        return "", {}, [Wrong(at, f"unknown {kind} {shown(name)}{near}", f"there are {', '.join(table)}")]
    options = {key: value for key, value in entry.items() if key != "name"}
    made, wrong = _options(short, table[short], options)
    return short, made, wrong


def exhaustive(sampler: str, space: Mapping[str, Dimension], n_trials: int, queued: int) -> Iterator[Wrong]:
    """Yield why a sampler that walks over all combinations cannot; nothing for any other sampler."""
    if sampler not in EXHAUSTIVE:
        return
    endless = [name for name, dimension in space.items() if dimension.size is None]
    for name in endless:
        what = f"the {sampler} sampler needs a step or choices for {name}"
        yield Wrong(("search_space", name), what, f"write, for example, '{name}: [...]'")
    size = math.prod(dimension.size or 1 for dimension in space.values())
    if not endless and size > MAX_GRID:
        yield Wrong(("sampler",), f"{size} combinations are too many to walk over; {MAX_GRID} is the most")
    elif not endless and n_trials > size + queued:
        what = f"there are {size} combinations for {n_trials} trials"
        yield Wrong(("n_trials",), what, f"write n_trials: {size + queued}")


class Sort(NamedTuple):
    """What sort of a study it is: its cells, its packs, and whether it names groups and memory."""

    cells: tuple[tuple[str, str], ...]
    pack: int | str
    groups: bool
    memory: bool = False


UNPACKED = "a cluster trains one model at a time, and no packs"


def cluster(sort: Sort, fixed: Mapping[str, Value], space: Mapping[str, Dimension]) -> Iterator[Wrong]:
    """Yield why trials of a study cannot be trained on a cluster."""
    if sort.cells != (("cpu", "sparse"),):
        yield Wrong(("matrix",), "a cluster trains on CPUs and on sparse rows", "leave matrix out", key=True)
    if sort.pack not in ("auto", 1):
        yield Wrong(("pack",), UNPACKED, "leave pack out", key=True)
    if sort.memory:
        yield Wrong(("memory",), UNPACKED, "leave memory out", key=True)
    if sort.groups:
        yield Wrong(("groups",), "a cluster knows no groups", "leave them out", key=True)
    for section, each in (("hyperparameters", {n: (v,) for n, v in fixed.items()}), ("search_space", _ends(space))):
        for name, values in ((name, each[name]) for name in BOUND if name in each):
            why = next((why for v in values if (why := unfit(Hyperparameters.of({name: v}))) is not None), None)
            if why is not None:
                yield Wrong((section, name), why, "leave it out, or train without the cluster", key=True)


def _ends(space: Mapping[str, Dimension]) -> dict[str, tuple[Value, ...]]:
    """Return the choices of each searched parameter, or its ends."""
    return {name: tuple(d.choices) if d.choices is not None else (d.low, d.high) for name, d in space.items()}


def channels(raw: Mapping[str, Any]) -> list[Wrong]:
    """Return what is wrong with data given by channels; a ``label`` says that they are tables."""
    wrong = []
    known = ("train", *SHARED, "feature_dim", *TABLE)
    for key, value in raw.items():
        if key not in known:
            near = suggestion(key, (*known, "card"))
            wrong.append(Wrong((key,), f"unknown key {shown(key)}{near}", f"data has {', '.join(known)}, or a card",
                               key=True))
        elif key in TABLE or (key in SHARED and _is_share(value)):
            continue  # the check of tables has words for it
        elif key == "feature_dim":
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                what = f"feature_dim must be a whole number of at least 1, not {shown(value)}"
                wrong.append(Wrong((key,), what, unquoted(value)))
        elif value is not None or key != "holdout":
            wrong += list(_paths(key, value))
    if "train" not in raw:
        wrong.append(Wrong((), "data has no train channel", "write train: PATH and test: PATH, or a card", key=True))
    if "train" in raw and "test" not in raw:
        wrong.append(Wrong((), "the objective needs a test channel, and data has none", "write test: PATH", key=True))
    return wrong


def tables(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[Wrong]]:
    """Return what data says of a table's columns and of its split, and what is wrong with that."""
    shares = {key: raw[key] for key in SHARED if _is_share(raw.get(key))}
    given = {key: value for key, value in raw.items() if key in TABLE}
    if "label" not in given:
        hint = "write label: COLUMN beside it"
        what = "is of a table, and no label is named"
        return {}, {}, [Wrong((key,), f"{key} {what}", hint, key=True) for key in (*given, *shares)]
    wrong = []
    for key, value in given.items():
        entries = value if key in LISTS and isinstance(value, list) else [value]
        faults = [fault for entry in entries if (fault := _option_fault(key, TABLE[key], entry))]
        wrong += [Wrong((key,), fault, unquoted(value)) for fault in faults[:1]]
    if raw.get("feature_dim") is not None:
        wrong.append(Wrong(("feature_dim",), "a table's features are its columns' own", "leave it out", key=True))
    if not shares:
        what = "divides nothing: neither test nor holdout is a share"
        wrong += [Wrong((key,), f"{key} {what}", "write test: 0.1, or leave it out", key=True)
                  for key in _SPLIT if key in given]  # fmt: skip
    split = {**shares, **{name: given[key] for key, name in _SPLIT.items() if key in given}}
    columns = {key: value for key, value in given.items() if key not in _SPLIT}
    for key in columns.keys() & set(LISTS):
        columns[key] = tuple(columns[key]) if isinstance(columns[key], list) else (columns[key],)
    if not wrong:
        try:
            Columns(**columns), Split(**split)
        except UsageError as error:
            wrong.append(Wrong((), error.what, error.hint, key=True))
    return columns, split, wrong


def card(raw: Mapping[str, Any], cards: Mapping[str, Card]) -> list[Wrong]:
    """Return what is wrong with data given by a dataset card and its keys."""
    name = raw["card"]
    if not isinstance(name, str) or name not in cards:
        near = suggestion(name, cards) if isinstance(name, str) else ""
        hint = f"there are {', '.join(cards)}; for files write train: PATH and test: PATH"
        return [Wrong(("card",), f"unknown dataset card {shown(name)}{near}", hint)]
    wrong = []
    keys = cards[name].keys
    for key, value in raw.items():
        if key == "card":
            continue
        if key not in keys:
            what = f"the card {name} has no key {shown(key)}{suggestion(key, keys)}"
            wrong.append(Wrong((key,), what, f"it has {', '.join(keys)}" if keys else None, key=True))
            continue
        fault = _option_fault(key, card_option(keys[key]), value)
        if fault:
            wrong.append(Wrong((key,), fault, unquoted(value)))
    return wrong


def sweep(
    raw: Mapping[str, list[Any]], name: str | None, keys: Mapping[str, Any], cards: Mapping[str, Card]
) -> list[Wrong]:  # fmt: skip
    """Return what is wrong with the values of a sweep: each must be one that the card takes."""
    if raw and name is None:
        return [Wrong(("sweep",), "a sweep needs a dataset card", "its keys are the card's; files have none")]
    wrong = []
    for key, values in raw.items():
        if not values:
            wrong.append(Wrong(("sweep", key), f"{key} is an empty list"))
        for i, value in enumerate(values):
            faults = card({"card": name, **keys, key: value}, cards)
            wrong += [Wrong(("sweep", key) if f.key else ("sweep", key, i), f.what, f.hint, f.key) for f in faults]
    return wrong


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _paths(key: str, value: Any) -> Iterator[Wrong]:
    entries = value if isinstance(value, list) else [value]
    if not entries:
        yield Wrong((key,), f"{key} is an empty list", "name a file, a folder or a pattern")
    for i, entry in enumerate(entries):
        at = (key, i) if isinstance(value, list) else (key,)
        if not isinstance(entry, str) or not entry.strip():
            yield Wrong(at, f"{key} must be a path or a list of paths, not {shown(entry)}")
        elif len(entry) > 4096:
            yield Wrong(at, f"a path of {len(entry)} characters; 4096 is the most")


def _value(name: str, raw: Any) -> tuple[Value, Wrong | None]:
    try:
        return check(name, raw), None
    except UsageError as error:
        choices = PARAMETERS[name].choices
        near = suggestion(raw, choices) if isinstance(raw, str) else ""
        return None, Wrong((name,), error.what + near, None if choices else error.hint or unquoted(raw))


def _unknown(name: str, known: Collection[str], keys: Collection[str]) -> Wrong:
    hint = f"{name} is a key of the top level" if name in keys else None
    return Wrong((name,), f"unknown parameter {shown(name)}{meant(name, known)}", hint, key=True)


def _not_searched(name: str, searched: Collection[str], fixed: Mapping[str, Any]) -> Wrong:
    if name in fixed:
        what = f"{name} is fixed under hyperparameters and cannot be enqueued"
        return Wrong((name,), what, "move it to search_space, or leave it out here", key=True)
    if name in PARAMETERS:
        return Wrong((name,), f"{name} is not in search_space", "only searched parameters are enqueued", key=True)
    return Wrong((name,), f"unknown parameter {shown(name)}{meant(name, searched)}", key=True)


def _options(short: str, row: Algorithm, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Wrong]]:
    wrong: list[Wrong] = []
    made: dict[str, Any] = {}
    known = [*row.options, *(["wrapped_pruner"] if short == "patient" else [])]
    for key, value in options.items():
        if key == "wrapped_pruner" and short == "patient":
            inner, inner_options, faults = algorithm(value, PRUNERS, "pruner")
            wrong += [fault.under(key) for fault in faults]
            made[key] = {"name": inner, **inner_options}
        elif key not in row.options:
            hint = f"it has {', '.join(known)}" if known else "it has none"
            if key == "seed":
                hint = "the study's own seed is used: write 'seed: 1' at the top level"
            what = f"{row.optuna} has no option {shown(key)}{suggestion(key, known)}"
            wrong.append(Wrong((key,), what, hint, key=True))
        elif fault := _option_fault(key, row.options[key], value):
            wrong.append(Wrong((key,), fault, unquoted(value)))
        else:
            made[key] = float(value) if row.options[key].type is float else value
    wrong += [Wrong((), f"{short} needs the option {key}") for key in row.required if key not in options]
    return made, wrong or list(_together(short, made))


def _option_fault(key: str, option: Option, value: Any) -> str | None:
    """Return what is wrong with an option's value, or None."""
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[option.type]
    words = ", ".join(option.words)
    if option.words and isinstance(value, str) and value in option.words:
        return None
    if option.type is str and option.words:
        return f"{key} must be one of {words}, not {shown(value)}"
    accepted = (int, float) if option.type is float else option.type
    if not isinstance(value, accepted) or (isinstance(value, bool) and option.type is not bool):
        return f"{key} must be {wanted}{f' or {words}' if words else ''}, not {shown(value)}"
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            return f"{key} must be {wanted}, not {shown(value)}"
        if option.low is not None and value < option.low:
            return f"{key} must be at least {option.low:g}, not {shown(value)}"
        if option.high is not None and value > option.high:
            return f"{key} must be at most {option.high:g}, not {shown(value)}"
    return None


def _together(short: str, options: Mapping[str, Any]) -> Iterator[Wrong]:
    """Yield the combinations of options that Optuna refuses."""
    if short == "tpe" and options.get("group") and options.get("multivariate") is False:
        yield Wrong(("group",), "group needs multivariate: true")
    if short == "threshold":
        if not {"lower", "upper"} & set(options):
            yield Wrong((), "threshold needs the option lower or upper, or both")
        elif options.get("lower", -math.inf) > options.get("upper", math.inf):
            yield Wrong(("lower",), "lower is above upper")
    most = options.get("max_resource")
    if short == "hyperband" and isinstance(most, int) and most < options.get("min_resource", 1):
        yield Wrong(("max_resource",), "max_resource is below min_resource")
