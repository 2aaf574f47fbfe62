"""MovieLens: the ratings of ``ml-100k.zip`` as one-hot rows, in the splits that come with it.

A row has a feature for its user and one for its movie.  With attributes also: the user's age (in steps of five
years), gender, occupation and first character of the zip code, and the movie's year and genres.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from fmtune.errors import DataError
from fmtune.rows import SparseRows

LARGEST = 1 << 24
"""Bytes that an unpacked member may have."""

GENRES_FROM = 5  # column of u.item at which the genres begin
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


class Ratings(NamedTuple):
    """A split: its rows, the first feature of each group of features, and the features' names."""

    train: SparseRows
    test: SparseRows
    groups: dict[str, int]
    names: tuple[str, ...]


class _Block(NamedTuple):
    """Features of users or of movies: row ``i`` is who has the number ``i + 1``."""

    matrix: sparse.csr_array
    widths: dict[str, int]
    names: tuple[str, ...]


def read(content: bytes, split: str, *, attributes: bool, name: str = "ml-100k.zip") -> Ratings:
    """Return a split of the archive.

    Parameters
    ----------
    content
        The archive.
    split
        ``u1`` to ``u5`` (five folds), ``ua`` or ``ub`` (ten ratings of each user to test on).
    attributes
        Whether rows also have what is known of user and movie.
    name
        What messages call the archive.

    Raises
    ------
    DataError
        No such archive, or a member that is missing or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {m: _member(archive, m) for m in (f"{split}.base", f"{split}.test", "u.user", "u.item")}
        users = _users(_table(members["u.user"], 5), attributes)
        items = _items(_table(members["u.item"], 24), attributes)
        parts = [_rows(members[f"{split}.{part}"], users, items) for part in ("base", "test")]
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        what = f"not the archive of MovieLens 100k: {error}"
        raise DataError(what, where=name, hint="get the file again") from error
    widths = {**users.widths, **items.widths}
    firsts = itertools.accumulate(widths.values(), initial=0)
    return Ratings(parts[0], parts[1], dict(zip(widths, firsts, strict=False)), users.names + items.names)


def _member(archive: zipfile.ZipFile, member: str) -> str:
    info = archive.getinfo(f"ml-100k/{member}")
    if info.file_size > LARGEST:
        raise ValueError(f"{member} has {info.file_size:,} bytes")
    return archive.read(info).decode("latin-1")


def _table(text: str, columns: int) -> list[list[str]]:
    """Return the fields of a file with ``|`` between them; its first column counts from 1."""
    table = [line.split("|") for line in text.splitlines() if line]
    for number, row in enumerate(table, 1):
        if len(row) != columns or row[0] != str(number):
            raise ValueError(f"line {number} of a table of {columns} columns is {row[:3]}")
    return table


def _users(table: list[list[str]], attributes: bool) -> _Block:
    words = {"user": [[row[0]] for row in table]}
    if attributes:
        words["age"] = [[f"{int(row[1]) // 5 * 5:03}"] for row in table]
        words["gender"] = [[row[2]] for row in table]
        words["occupation"] = [[row[3]] for row in table]
        words["zip"] = [[row[4][:1]] for row in table]
    ages = {age: f"{int(age)} to {int(age) + 4}" for (age,) in words.get("age", ())}
    return _block(words, age=ages)


def _items(table: list[list[str]], attributes: bool) -> _Block:
    words = {"movie": [[row[0]] for row in table]}
    if attributes:
        words["year"] = [[row[2][-4:]] for row in table]
        words["genre"] = [[str(i) for i, flag in enumerate(row[GENRES_FROM:]) if flag == "1"] for row in table]
    titles = {row[0]: row[1] for row in table}
    return _block(words, movie=titles, genre={str(i): genre for i, genre in enumerate(GENRES)})


def _block(words: dict[str, list[list[str]]], **called: Mapping[str, str]) -> _Block:
    """Return one-hot columns for each group's words; a number's column is in the order of the numbers.

    ``called`` says by group what a word is called, where that is not the word itself.
    """
    known = {group: _known(several) for group, several in words.items()}
    matrices = [_one_hot(several, known[group]) for group, several in words.items()]
    names = tuple(f"{g}={called.get(g, {}).get(word, word)}" for g, several in known.items() for word in several)
    return _Block(sparse.hstack(matrices, "csr"), {group: len(several) for group, several in known.items()}, names)


def _known(words: Sequence[Sequence[str]]) -> list[str]:
    return sorted({word for several in words for word in several}, key=lambda word: (len(word), word))


def _one_hot(words: Sequence[Sequence[str]], known: Sequence[str]) -> sparse.csr_array:
    column = {word: i for i, word in enumerate(known)}
    indices = [column[word] for several in words for word in sorted(several, key=column.__getitem__)]
    indptr = np.cumsum([0, *map(len, words)])
    return sparse.csr_array((np.ones(len(indices), np.float32), indices, indptr), (len(words), len(known)))


def _rows(text: str, users: _Block, items: _Block) -> SparseRows:
    """Return the ratings of one file, its columns user, movie, rating and time."""
    if not text.strip():
        raise ValueError("no ratings")
    table = np.loadtxt(io.StringIO(text), np.int64, ndmin=2)
    if table.shape[1] != 4 or table[:, :2].min() < 1:
        raise ValueError("ratings have a user, a movie, a rating and a time")
    matrix = sparse.hstack([users.matrix[table[:, 0] - 1], items.matrix[table[:, 1] - 1]], "csr")
    return SparseRows(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32),
        table[:, 2].astype(np.float32), matrix.shape[1],
    )  # fmt: skip
