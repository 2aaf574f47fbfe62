"""Catalog: dataset cards (``datasets/*.yaml``), and the channels that they stand for.

A card says where data come from, their licence and digest, and which keys a study may set::

    data: {card: digits, class: 3, split: 1}

Its files lie beside it, or have addresses: then they are downloaded when they are first used.
To add a dataset of a new kind: write one function that makes Channels, and put it in MAKERS.
"""

from __future__ import annotations

import difflib
import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML

from fmtune.data import idx, movielens, planted, shelf
from fmtune.data.download import File, Progress
from fmtune.errors import DataError, UsageError
from fmtune.rows import DenseRows, Rows, SparseRows


@dataclass(frozen=True)
class Key:
    """A key that a study may set: its type, default and meaning.

    ``int`` and ``float`` have a range, ends included; ``str`` has choices; ``bool`` needs neither.
    """

    type: str
    default: int | float | str | bool
    help: str
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """A dataset card; ``folder`` is where it lies, beside those of its files that have no address."""

    name: str
    title: str
    description: str
    task: str
    maker: str
    origin: str
    licence: str
    keys: dict[str, Key]
    folder: Path
    files: tuple[File, ...] = ()
    obtained: str | None = None
    citation: str | None = None

    @property
    def remote(self) -> tuple[File, ...]:
        """The files that are downloaded."""
        return tuple(file for file in self.files if file.urls)


@dataclass(frozen=True)
class Channels:
    """What a card gives: its channels, one sentence about them, facts known by construction, groups and names.

    ``groups`` is name to first feature, empty where features are all of a kind; ``names`` the features', if known.
    """

    train: Rows
    test: Rows | None
    holdout: Rows | None
    description: str
    facts: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()


def folder() -> Path:
    """Return the folder of the cards: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "_share" / "datasets"
    return inside if inside.is_dir() else package.parent / "datasets"


def cards(where: Path | None = None) -> dict[str, Card]:
    """Return all cards by name, from ``where`` or the usual folder."""
    found = [_card(path.read_text("utf-8"), path.parent) for path in sorted((where or folder()).glob("*.yaml"))]
    return {card.name: card for card in found}


def load(
    card: str | Mapping[str, Any],
    keys: Mapping[str, Any] | None = None,
    *,
    where: Path | None = None,
    home: Path | None = None,
    progress: Progress | None = None,
) -> Channels:
    """Return the channels of a card; what is not on this machine yet is downloaded.

    Parameters
    ----------
    card
        Its name, or a mapping with the name under ``card`` and keys beside it, as a study file has it.
    keys
        Values of the card's keys; the others have their defaults.
    where
        A folder of cards, instead of the usual one.
    home
        Where downloaded files lie, instead of the usual folder.
    progress
        Called as bytes come.

    Raises
    ------
    UsageError
        No such card or key, or a value out of its range.
    DataError
        A file of the card is missing or is not the one the card describes.
    ResourceError
        A file could not be downloaded.
    """
    if not isinstance(card, str):
        keys = {**card, **(keys or {})}
        card = str(keys.pop("card", ""))
    chosen = find(card, where)
    checked = check_keys(chosen, keys or {})
    return MAKERS[chosen.maker](chosen, checked, obtain(chosen, home=home, progress=progress))


def obtain(card: Card, *, home: Path | None = None, progress: Progress | None = None) -> dict[str, bytes]:
    """Return the content of each file of a card by name, downloaded if need be; arguments as for ``load``."""
    beside = {file.name: _beside(card, file) for file in card.files if not file.urls}
    far = shelf.bring(card.name, card.remote, home or shelf.folder(), progress or (lambda name, done, size: None))
    return {**beside, **far}


def find(name: str, where: Path | None = None) -> Card:
    """Return a card by name, or raise a UsageError that lists the names."""
    known = cards(where)
    if name not in known:
        raise UsageError(f"unknown dataset card {name!r}{_near(name, known)}", hint=f"the cards are {', '.join(known)}")
    return known[name]


def check_keys(card: Card, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all keys of a card, defaults included; raise UsageError for what it does not allow."""
    for name, value in keys.items():
        if name not in card.keys:
            hint = f"the keys of {card.name} are {', '.join(card.keys)}"
            raise UsageError(f"unknown key {name!r}{_near(name, card.keys)}", where=f"card {card.name}", hint=hint)
        key = card.keys[name]
        if not _fits(key, value):
            hint = f"{name}: {key.help}"
            raise UsageError(f"{name} is {value!r}, not {_wanted(key)}", where=f"card {card.name}", hint=hint)
    return {name: keys.get(name, key.default) for name, key in card.keys.items()}


def _fits(key: Key, value: Any) -> bool:
    if key.type == "bool" or isinstance(value, bool):
        return key.type == "bool" and isinstance(value, bool)
    if key.type == "str":
        return value in key.choices
    number = isinstance(value, int if key.type == "int" else int | float)
    return number and (key.low is None or value >= key.low) and (key.high is None or value <= key.high)


def _wanted(key: Key) -> str:
    if key.type == "bool":
        return "true or false"
    if key.type == "str":
        return f"one of {', '.join(key.choices)}"
    return f"{'a whole number' if key.type == 'int' else 'a number'} from {key.low} to {key.high}"


def _near(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


@lru_cache
def _card(text: str, folder: Path) -> Card:
    """Return what the text of a card says: it takes milliseconds, and a study file asks for all cards."""
    card = YAML(typ="safe", pure=True).load(text)
    card["keys"] = {name: Key(**_tuples(key)) for name, key in card.get("keys", {}).items()}
    card["files"] = tuple(File(**_tuples(file)) for file in card.get("files", ()))
    return Card(**card, folder=folder)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _beside(card: Card, file: File) -> bytes:
    """Return the content of a file that comes with its card, if it is the one that the card describes."""
    path = card.folder / file.name
    if not path.is_file():
        raise DataError("the card's file is missing", where=str(path), hint=f"get it from {card.origin}")
    content = path.read_bytes()
    if not file.is_right(content):
        what = "the file's SHA-256 is not the card's"
        raise DataError(what, where=str(path), hint=f"get it again from {card.origin}")
    return content


def _digits(card: Card, keys: dict[str, Any], files: Mapping[str, bytes]) -> Channels:
    """Make "is it a <class>?" of the digits: 64 pixels in 0..1, a seeded split stratified by digit."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(files["digits.csv.gz"])), delimiter=",", dtype=np.float32)
    digits = table[:, 64].astype(np.int64)
    labels = (digits == keys["class"]).astype(np.float32)
    rows = DenseRows(table[:, :64] / np.float32(16), labels, 64).to_sparse()
    train, test, holdout = (rows.take(part) for part in _stratified(digits, (0.6, 0.2, 0.2), keys["split"]))
    what = f"handwritten digits: is it a {keys['class']}? (split {keys['split']})"
    facts = {"classes": 10, "positive": int(labels.sum())}
    return Channels(train, test, holdout, what, facts, names=_places(8, 8))


def _stratified(classes: NDArray[np.int64], shares: tuple[float, ...], seed: int) -> list[NDArray[np.int64]]:
    """Return row numbers of each part, in random order; each class is divided by the same shares.

    Random order comes from the raw words of PCG64, whose stream numpy never changes.
    """
    order = np.argsort(np.random.PCG64(seed).random_raw(len(classes)), kind="stable")
    ends = np.cumsum(shares[:-1])
    parts: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for one in np.unique(classes):
        places = np.flatnonzero(classes[order] == one)
        for part, piece in zip(parts, np.split(places, np.rint(ends * len(places)).astype(np.int64)), strict=True):
            part.append(piece)
    return [order[np.sort(np.concatenate(part))] for part in parts]


def _images(card: Card, keys: dict[str, Any], files: Mapping[str, bytes]) -> Channels:
    """Make "is it a <class>?" of pictures in IDX files (train, its labels, test, its labels): pixels in 0..1."""
    images, labels, sealed, sealed_labels = (idx.read(content, name) for name, content in files.items())
    for name, few, many in (("train", labels, images), ("test", sealed_labels, sealed)):
        if few.shape != many.shape[:1]:
            what = f"{len(many):,} pictures and labels of shape {few.shape}"
            raise DataError(what, where=f"card {card.name}, {name}", hint="get the files again")
    learnt = len(images) - keys["test"]
    if learnt < 1:
        hint = f"the training file has {len(images):,} pictures"
        raise UsageError("test leaves no pictures to learn from", where=f"card {card.name}", hint=hint)
    whole = _pixels(images, labels == keys["class"])
    what = f"{card.title}: is it class {keys['class']}?"
    facts = {"classes": int(labels.max()) + 1, "positive": int((labels == keys["class"]).sum())}
    holdout = _pixels(sealed, sealed_labels == keys["class"])
    names = _places(*images.shape[1:])
    return Channels(whole.slice(0, learnt), whole.slice(learnt, whole.n), holdout, what, facts, names=names)


def _places(height: int, width: int) -> tuple[str, ...]:
    """Return the names of a picture's pixels, row by row from its upper left corner."""
    return tuple(f"row {row}, column {column}" for row in range(1, height + 1) for column in range(1, width + 1))


def _pixels(images: NDArray[np.uint8], labels: NDArray[np.bool_]) -> SparseRows:
    """Return a row of each picture, its grey levels scaled to 0..1; background (0) is not stored."""
    flat = images.reshape(len(images), -1)
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(flat, axis=1))])
    places = np.flatnonzero(flat)
    values = flat.ravel()[places].astype(np.float32) / np.float32(255)
    indices = (places % flat.shape[1]).astype(np.int32)
    return SparseRows(indptr, indices, values, labels.astype(np.float32), flat.shape[1])


def _movielens(card: Card, keys: dict[str, Any], files: Mapping[str, bytes]) -> Channels:
    """Make the ratings of a split that comes with MovieLens."""
    ((name, content),) = files.items()
    ratings = movielens.read(content, keys["split"], attributes=keys["attributes"], name=name)
    what = f"{card.title}, split {keys['split']}: a row is {', '.join(ratings.groups)}"
    return Channels(ratings.train, ratings.test, None, what, groups=ratings.groups, names=ratings.names)


def _planted(card: Card, keys: dict[str, Any], files: Mapping[str, bytes]) -> Channels:
    """Draw planted-clicks; the planted model's log loss of each channel is a fact."""
    shares = {name: keys.pop(name) for name in ("test", "holdout")}
    if keys["features"] < keys["fields"]:
        raise UsageError("features is less than fields", where=f"card {card.name}", hint="every field needs a feature")
    n = keys["rows"]
    stop = n - round(n * shares["holdout"])
    start = stop - round(n * shares["test"])
    if start < 1:
        raise UsageError(
            "test and holdout leave no rows to learn from",
            where=f"card {card.name}",
            hint="give them less than 1 together",
        )
    drawn = planted.draw(**keys)
    facts: dict[str, Any] = {"planted_log_loss_train": drawn.log_loss(0, start)}
    if stop > start:
        facts["planted_log_loss"] = drawn.log_loss(start, stop)
    if n > stop:
        facts["planted_log_loss_holdout"] = drawn.log_loss(stop, n)
    return Channels(
        drawn.rows.slice(0, start),
        drawn.rows.slice(start, stop) if stop > start else None,
        drawn.rows.slice(stop, n) if n > stop else None,
        f"clicks drawn from a planted factorization machine of {keys['factors']} factors (seed {keys['seed']})",
        facts,
        planted.fields(keys["features"], keys["fields"]),
    )


def _planted_ratings(card: Card, keys: dict[str, Any], files: Mapping[str, bytes]) -> Channels:
    """Draw planted-ratings; the planted model's RMSE on the test channel is a fact."""
    drawn, score = planted.ratings(**{k: v for k, v in keys.items() if k != "test"})
    start = drawn.n - round(drawn.n * keys["test"])
    if not 0 < start < drawn.n:
        hint = "give more rows, or another share"
        raise UsageError("test takes all rows, or none", where=f"card {card.name}", hint=hint)
    test = drawn.slice(start, drawn.n)
    assert test.labels is not None
    facts = {"planted_rmse": float(np.sqrt(np.mean((test.labels - score[start:]) ** 2)))}
    what = f"ratings drawn from a planted factorization machine of {keys['factors']} factors (seed {keys['seed']})"
    return Channels(drawn.slice(0, start), test, None, what, facts, {"user": 0, "item": keys["users"]})


Maker = Callable[[Card, dict[str, Any], Mapping[str, bytes]], Channels]

MAKERS: dict[str, Maker] = {
    "digits": _digits, "images": _images, "movielens": _movielens, "planted": _planted,
    "planted-ratings": _planted_ratings,
}
