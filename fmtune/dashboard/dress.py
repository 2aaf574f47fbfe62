"""Dress: what a study wears in the dashboard: metric names, a note, two plots and its report as an artifact.

Written when the dashboard opens, never by the search; nothing is written twice, and a note that somebody
edited is left alone.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from fmtune.dashboard.extra import optuna_dashboard
from fmtune.dashboard.plots import figures
from fmtune.tune.collect import collect
from fmtune.tune.folder import folder_of
from fmtune.tune.result import StudyResult
from fmtune.tune.spec import Spec
from fmtune.tune.storage import open_storage, sqlite_url
from fmtune.tune.workers import gone

Verdict = Callable[[StudyResult], str]

# A study's system attribute: what was written here, as digests, so that it is not written again.
WORN = "fmtune:dressed"


def dress(spec: Spec, root: Path | None = None, verdict: Verdict | None = None) -> bool:
    """Give a study its note, plots and report for the dashboard, as far as they changed.

    Parameters
    ----------
    spec
        The study.
    root
        The folder in which ``runs/`` and ``reports/`` lie; by default the current one.
    verdict
        Says in Markdown what came of the study, free text in it escaped; by default one sentence.

    Returns
    -------
    bool
        False if the study is running: its database is left to the search.

    Raises
    ------
    StorageError
        There is no such study yet, or its database cannot be opened.
    ResourceError
        optuna-dashboard is not installed.
    """
    tools = optuna_dashboard()
    result = collect(spec, root)
    storage = open_storage(spec.storage or sqlite_url(folder_of(spec.study_name, root)))
    names = [spec.study_name, *(f"{spec.study_name}/{c.name}" for c in result.cells)]
    ids = {s.study_name: s._study_id for s in storage.get_all_studies() if s.study_name in names}
    if any(is_running(storage, study_id) for study_id in ids.values()):
        return False
    for study_id in ids.values():
        _name_metric(storage, study_id, result.objective or spec.objective)
    study = optuna.load_study(study_name=spec.study_name, storage=storage)
    worn = dict(storage.get_study_system_attrs(study._study_id).get(WORN, {}))
    before = dict(worn)
    _report(study, spec, root, worn)
    _plots(tools, study, result, worn)
    _note(tools, study, _words(spec, (verdict or _verdict)(result), study._study_id, worn.get("artifact")), worn)
    if worn != before:
        storage.set_study_system_attr(study._study_id, WORN, worn)
    return True


def artifacts(spec: Spec, root: Path | None = None) -> FileSystemArtifactStore:
    """Return the study's artifact store: a folder in its own folder, which need not be there yet."""
    return FileSystemArtifactStore(artifact_folder(spec, root))


def artifact_folder(spec: Spec, root: Path | None = None) -> Path:
    """Return where the study's artifacts lie: ``runs/<study_name>/artifacts``."""
    return folder_of(spec.study_name, root) / "artifacts"


def is_running(storage: BaseStorage, study_id: int) -> bool:
    """Whether a living process holds a trial of the study; of another machine's processes the answer is yes."""
    trials = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
    owners = [t.user_attrs.get("owner") for t in trials]
    return any(owner is not None and not gone(owner) for owner in owners)


def _name_metric(storage: BaseStorage, study_id: int, objective: str) -> None:
    if "study:metric_names" not in storage.get_study_system_attrs(study_id):
        storage.set_study_system_attr(study_id, "study:metric_names", [objective])


def _report(study: optuna.Study, spec: Spec, root: Path | None, worn: dict[str, Any]) -> None:
    """Upload the report; a changed one takes the old one's place in the store, under the same name."""
    page = (root or Path.cwd()) / "reports" / f"{spec.study_name}.html"
    if not page.is_file():
        return
    digest = _digest(page.read_bytes())
    artifact_folder(spec, root).mkdir(parents=True, exist_ok=True)
    store, known = artifacts(spec, root), worn.get("artifact")
    listed = study._storage.get_study_system_attrs(study._study_id).get(f"artifacts:{known}", "null") != "null"
    if not listed:
        known = upload_artifact(artifact_store=store, file_path=str(page), study_or_trial=study)
    elif worn.get("report") != digest:
        with page.open("rb") as content:
            store.write(str(known), content)
    worn.update(report=digest, artifact=known)


def _plots(tools: Any, study: optuna.Study, result: StudyResult, worn: dict[str, Any]) -> None:
    for name, figure in figures(result).items():
        digest = _digest(figure.to_json().encode())
        if worn.get(name) != digest:
            tools.save_plotly_graph_object(study, figure, graph_object_id=name)
            worn[name] = digest


def _note(tools: Any, study: optuna.Study, text: str, worn: dict[str, Any]) -> None:
    """Save the note, unless the one that is there is not ours."""
    there, digest = tools.get_note(study), _digest(text.encode())
    if there != text and (not there or worn.get("note") == _digest(there.encode())):
        tools.save_note(study, text)
        worn["note"] = digest


def _words(spec: Spec, told: str, study_id: int, artifact: str | None) -> str:
    """Return the note: the verdict, where the report is, how to make it anew."""
    # The dashboard shows HTML as text, and has a table of all trials itself: the folded one is left out.
    told = told.partition("<details>")[0].strip()
    place = f"[The whole report](/artifacts/{study_id}/{artifact}), as it was when this dashboard was opened."
    missing = "There is no report yet."
    lines = [
        told, place if artifact else missing,
        "Made anew, or opened without this dashboard:",
        # On a line of its own a command needs no escapes: the fence ends only with a line of its own.
        "~~~\n" + " ".join(shlex.join(["fmtune", "report", str(spec.path)]).split()) + "\n~~~",
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"


def _verdict(result: StudyResult) -> str:
    best = result.best
    if best is None or best.value is None:
        return "No trial is complete yet."
    return f"Trial {best.number} is the best: `{result.objective}` {best.value:.6g}."


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
