"""FastAPI on uvicorn with the same model and the same scorer: what the server is measured against."""

import os

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from fmtune.fm.model import Model
from fmtune.fm.scorer import Scorer
from fmtune.rows import SparseRows

scorer = Scorer(Model.load(os.environ["FMTUNE_LOAD_MODEL"]))
# Kernels are loaded, or compiled, before the first request.
scorer.predict(SparseRows(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32), None, scorer.feature_dim))
app = FastAPI()


class Features(BaseModel):
    values: list[float]
    keys: list[int]
    shape: list[int] | None = None


class Data(BaseModel):
    features: Features


class Instance(BaseModel):
    data: Data


class Asked(BaseModel):
    instances: list[Instance]


class Prediction(BaseModel):
    score: float
    predicted_label: float


class Answered(BaseModel):
    predictions: list[Prediction]


@app.get("/ping")
async def ping() -> dict[str, str]:
    """Say that the server is there."""
    return {}


@app.post("/invocations")
async def invocations(asked: Asked) -> Answered:
    """Score rows, one by one."""
    predictions = []
    for instance in asked.instances:
        features = instance.data.features
        keys, values = np.array(features.keys, np.int32), np.array(features.values, np.float32)
        row = SparseRows(np.array([0, len(keys)]), keys, values, None, scorer.feature_dim)
        score = float(scorer.predict(row)[0])
        predictions.append(Prediction(score=score, predicted_label=float(score >= 0.5)))
    return Answered(predictions=predictions)
