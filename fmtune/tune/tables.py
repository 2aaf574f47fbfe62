"""Tables: Optuna's own, in which a study lies, and their rows of keys and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models

STUDIES = models.StudyModel.__table__
STUDY_ATTRS = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM = models.StudySystemAttributeModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
SCORES = models.TrialIntermediateValueModel.__table__
ATTRS = models.TrialUserAttributeModel.__table__
SYSTEM = models.TrialSystemAttributeModel.__table__


def pairs_of(c: sa.Connection, table: Any, owner_column: str, owner_id: int) -> dict[str, Any]:
    """Return key-value rows of one owner."""
    rows = c.execute(sa.select(table.c.key, table.c.value_json).where(table.c[owner_column] == owner_id))
    return {key: json.loads(value) for key, value in rows}


def upsert(c: sa.Connection, table: Any, owner_column: str, owner_id: int, values: Mapping[str, Any]) -> None:
    """Write key-value rows of one owner, over older ones of the same key."""
    if not values:
        return
    c.execute(table.delete().where(table.c[owner_column] == owner_id, table.c.key.in_(list(values))))
    c.execute(
        table.insert(), [{owner_column: owner_id, "key": k, "value_json": json.dumps(v)} for k, v in values.items()]
    )


def now() -> datetime:
    """Return the time as Optuna stores it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
