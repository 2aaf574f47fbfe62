"""The wheel and the locks: what is shipped, and what an installation fetches."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fmtune

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = re.compile(
    r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)(?: ; (.+?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


def pins(lock: str) -> dict[str, list[str]]:
    """Return name to locked versions: several where another Python or system has another one."""
    found: dict[str, list[str]] = {}
    for name, version, _, _ in PINNED.findall((ROOT / lock).read_text()):
        found.setdefault(name, []).append(version)
    return found


def group(name: str) -> list[str]:
    entries = PROJECT["dependency-groups"][name]
    return [
        one
        for entry in entries
        for one in (group(entry["include-group"]) if isinstance(entry, dict) else [entry])
    ]


RUNTIME = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"] + group("build")
DEV = group("dev") + PROJECT["project"]["optional-dependencies"]["parquet"]
CLUSTER = PROJECT["project"]["optional-dependencies"]["cluster"]
LOCKS = {
    "requirements.lock": RUNTIME,
    "requirements-dev.lock": RUNTIME + DEV,
    "requirements-cluster.lock": RUNTIME + DEV + CLUSTER,
    "requirements-docs.lock": RUNTIME + group("docs"),
}


@pytest.mark.parametrize(("lock", "wanted"), LOCKS.items())
def test_lock_satisfies_the_project(lock, wanted):
    """Each requirement of pyproject.toml is locked, in a version that it allows."""
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        versions = locked[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_lock_names_the_extras_that_are_asked_for():
    """pip 23 looks for another version of ``coverage[toml]`` where ``coverage`` alone is locked, and refuses it."""
    text = (ROOT / "requirements-dev.lock").read_text()
    asked = [Requirement(line) for one in metadata.distributions() for line in one.requires or ()]
    wanted = [one for one in asked if one.extras and (one.marker is None or one.marker.evaluate({"extra": ""}))]
    locked = pins("requirements-dev.lock")
    for one in wanted:
        if (name := canonicalize_name(one.name)) in locked:
            assert f"\n{name}[{','.join(sorted(one.extras))}]==" in text, one


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_place(lock):
    """A lock is pinned and hashed requirements and comments: no index, no path, no option."""
    rest = PINNED.sub("", (ROOT / lock).read_text())
    assert [line for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")] == []
    assert "://" not in rest
    assert not re.search(r"# +(via +)?/", rest)


@pytest.mark.parametrize(
    ("lock", "below"),
    [
        ("requirements-dev.lock", "requirements.lock"), ("requirements-docs.lock", "requirements.lock"),
        ("requirements-cluster.lock", "requirements-dev.lock"),
    ],
)  # fmt: skip
def test_a_lock_holds_the_one_below(lock, below):
    """Tests and docs run on the versions that users get: a lock repeats each pin of the one that it adds to."""
    own = pins(lock)
    assert {name: versions for name, versions in pins(below).items() if own.get(name) != versions} == {}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Names of the files in a wheel that pip built from this checkout, with nothing fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        ".",
        "--no-deps",
        "--no-index",
    ]
    command += ["--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("fmtune-*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("share", ["studies", "datasets"])
def test_wheel_carries_studies_and_datasets(wheel, share):
    """Each study and dataset card of the checkout lies in the wheel under fmtune/_share."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / share).rglob("*") if path.is_file()}
    assert f"{share}/digits.yaml" in files
    assert {name.removeprefix("fmtune/_share/") for name in wheel if f"/_share/{share}/" in name} == files


def test_wheel_carries_the_package(wheel):
    """Modules, the report's templates and whatever else lies beside them are in the wheel."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fmtune").rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    assert wanted - wheel == set()
    assert any(name.startswith("fmtune/report/") and not name.endswith(".py") for name in wheel)


def test_wheel_carries_nothing_else(wheel):
    """Only the package and its metadata, with the licence: no tests, no byte code, no other top folder."""
    metadata = f"fmtune-{PROJECT['project']['version']}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"fmtune", metadata}
    assert [name for name in wheel if re.search(r"(^|/)(tests?/|test_|conftest)|\.pyc$", name)] == []
    assert f"{metadata}/licenses/LICENSE" in wheel


def test_versions_agree():
    """The package and its metadata name the same version."""
    assert fmtune.__version__ == PROJECT["project"]["version"]
