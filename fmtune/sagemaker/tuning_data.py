"""Tuning data: a job's channels as a study's, with the commands that bring their files here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from fmtune.sagemaker.dialect import Notes, brief, number, scalar

# What a channel may say beside its name and place, and what becomes of it.
_SAID = {
    "CompressionType": "fmtune reads RecordIO unzipped: unzip the files when they are here",
    "ShuffleConfig": "the order of the files is not drawn: they are read by name",
    "RecordWrapperType": "SageMaker wraps each object as one record; fmtune reads files that are RecordIO themselves",
}
_PLAIN = ("ChannelName", "DataSource", "ContentType")


def channels(definition: Mapping[str, Any], feature_dim: Any, folder: str, notes: Notes) -> list[str]:
    """Return a study's lines of data, with notes on what its files are and how they are downloaded."""
    made: dict[str, str] = {}
    for entry in definition.get("InputDataConfig") or ():
        name = str(entry.get("ChannelName"))
        source = entry.get("DataSource") or {}
        place = source.get("S3DataSource") or {}
        if name not in ("train", "test"):
            notes.add("data", f"the channel {name!r} ({place.get('S3Uri')}) is left out: there are train and test")
            continue
        made[name] = f"{folder}/{name}"
        _download(name, source, place, made[name], notes)
        for key, value in entry.items():
            if key == "InputMode":
                notes.add("data", f"{name}: InputMode {value}: files are read here", harmless=True)
            elif key not in _PLAIN and value not in (None, "None"):
                notes.add("data", f"{name}: {key} {brief(value)}: {_SAID.get(key, 'it has no counterpart')}")
    for name in ("train", "test"):
        if name not in made:
            made[name] = f"{folder}/{name}"
            notes.add("data", f"the job names no {name} channel; put its files into {folder}/{name}")
    lines = ["data:", *(f"  {name}: {scalar(made[name])}" for name in ("train", "test"))]
    if isinstance(feature_dim, str) and feature_dim.startswith("<"):
        notes.add("data", f"feature_dim is left open ({feature_dim}): it is found in the train channel", harmless=True)
        return lines
    return lines if feature_dim is None else [*lines, f"  feature_dim: {int(number('feature_dim', feature_dim))}"]


def _download(name: str, source: Mapping[str, Any], place: Mapping[str, Any], folder: str, notes: Notes) -> None:
    """Note the command that downloads a channel's objects, below their names of S3."""
    uri, kind = place.get("S3Uri"), place.get("S3DataType", "S3Prefix")
    if uri is None or kind not in ("S3Prefix", "ManifestFile"):
        notes.add("data", f"{name}: put its files into {folder}; they come from {brief(source)}")
    elif kind == "ManifestFile":
        words = f'.[0].prefix as $p | .[1:][] | $p + ., "{folder}/" + .'
        listed = f"aws s3 cp {shlex.quote(str(uri))} - | jq -r {shlex.quote(words)}"
        notes.add("data", f"{name}: {listed} | xargs -n 2 aws s3 cp", harmless=True)
    else:
        notes.add("data", f"{name}: {_copy(str(uri), folder)}", harmless=True)


def _copy(uri: str, folder: str) -> str:
    """Return the command for an S3Prefix: all objects whose key begins so, be it a folder's, several's or one's own."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    above, slash, begins = key.rpartition("/")
    if not begins:
        return f"aws s3 cp --recursive {shlex.quote(uri)} {shlex.quote(folder)}"
    pattern = re.sub(r"([\[*?])", r"[\1]", begins) + "*"
    return (
        f"aws s3 cp --recursive {shlex.quote(f's3://{bucket}/{above}{slash}')} {shlex.quote(folder)}"
        f" --exclude '*' --include {shlex.quote(pattern)}"
    )
