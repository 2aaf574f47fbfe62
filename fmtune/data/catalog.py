"""Catalog: dataset cards (``datasets/*.yaml``), and the channels that they stand for.

A card says where data come from, their licence and digest, and which keys a study may set::

    data: {card: digits, class: 3, split: 1}

To add a dataset of a new kind: write one function that makes Channels, and put it in MAKERS.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML

from fmtune.data import planted
from fmtune.errors import DataError, UsageError
from fmtune.rows import DenseRows, Rows


@dataclass(frozen=True)
class Key:
    """A key that a study may set: its type (``int`` or ``float``), default and range, ends included."""

    type: str
    default: int | float
    low: int | float
    high: int | float
    help: str


@dataclass(frozen=True)
class Card:
    """A dataset card; ``file`` lies beside it, None for generated data."""

    name: str
    title: str
    description: str
    task: str
    maker: str
    origin: str
    licence: str
    keys: dict[str, Key]
    obtained: str | None = None
    citation: str | None = None
    file: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Channels:
    """What a card gives: its channels, one sentence about them, and facts known by construction."""

    train: Rows
    test: Rows | None
    holdout: Rows | None
    description: str
    facts: dict[str, Any] = field(default_factory=dict)


def folder() -> Path:
    """Return the folder of the cards: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "_share" / "datasets"
    return inside if inside.is_dir() else package.parent / "datasets"


def cards(where: Path | None = None) -> dict[str, Card]:
    """Return all cards by name, from ``where`` or the usual folder."""
    found = [_card(path) for path in sorted((where or folder()).glob("*.yaml"))]
    return {card.name: card for card in found}


def load(
    card: str | Mapping[str, Any], keys: Mapping[str, Any] | None = None, *, where: Path | None = None
) -> Channels:
    """Return the channels of a card.

    Parameters
    ----------
    card
        Its name, or a mapping with the name under ``card`` and keys beside it, as a study file has it.
    keys
        Values of the card's keys; the others have their defaults.
    where
        A folder of cards, instead of the usual one.

    Raises
    ------
    UsageError
        No such card or key, or a value out of its range.
    DataError
        The card's file is missing or is not the one the card describes.
    """
    if not isinstance(card, str):
        keys = {**card, **(keys or {})}
        card = str(keys.pop("card", ""))
    chosen = find(card, where)
    return MAKERS[chosen.maker](chosen, check_keys(chosen, keys or {}))


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
        number = isinstance(value, int if key.type == "int" else int | float) and not isinstance(value, bool)
        if not number or not key.low <= value <= key.high:
            wanted = f"{'a whole number' if key.type == 'int' else 'a number'} from {key.low} to {key.high}"
            raise UsageError(
                f"{name} is {value!r}, not {wanted}", where=f"card {card.name}", hint=f"{name}: {key.help}"
            )
    return {name: keys.get(name, key.default) for name, key in card.keys.items()}


def _near(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _card(path: Path) -> Card:
    text = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    text["keys"] = {name: Key(**key) for name, key in text.get("keys", {}).items()}
    if "file" in text:
        text["file"] = path.parent / text["file"]
    return Card(**text)


def _content(card: Card) -> bytes:
    """Return a card's file, if it is the one that the card describes."""
    assert card.file is not None
    if not card.file.is_file():
        raise DataError("the card's file is missing", where=str(card.file), hint=f"get it from {card.origin}")
    content = card.file.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise DataError(
            "the file's SHA-256 is not the card's", where=str(card.file), hint=f"get it again from {card.origin}"
        )
    return content


def _digits(card: Card, keys: dict[str, Any]) -> Channels:
    """Make "is it a <class>?" of the digits: 64 pixels in 0..1, a seeded split stratified by digit."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(_content(card))), delimiter=",", dtype=np.float32)
    digits = table[:, 64].astype(np.int64)
    labels = (digits == keys["class"]).astype(np.float32)
    rows = DenseRows(table[:, :64] / np.float32(16), labels, 64).to_sparse()
    train, test, holdout = (rows.take(part) for part in _stratified(digits, (0.6, 0.2, 0.2), keys["split"]))
    what = f"handwritten digits: is it a {keys['class']}? (split {keys['split']})"
    return Channels(train, test, holdout, what, {"classes": 10, "positive": int(labels.sum())})


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


def _planted(card: Card, keys: dict[str, Any]) -> Channels:
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
    )


MAKERS: dict[str, Callable[[Card, dict[str, Any]], Channels]] = {"digits": _digits, "planted": _planted}
