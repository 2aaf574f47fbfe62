"""Modules: the parsers, the storage and the atomic writes, and the tests that look at each.

They run with ``NUMBA_DISABLE_JIT=1``, so that the kernels among them are seen too.
"""

from __future__ import annotations

MODULES: dict[str, tuple[str, ...]] = {
    "files": ("files",),
    "digests": ("digests", "index"),
    "kernels/text": ("text", "libsvm"),
    "kernels/wire": ("wire", "recordio"),
    "kernels/records": ("plain", "recordio", "wire"),
    "kernels/plain": ("plain", "recordio"),
    "kernels/frames": ("recordio", "wire"),
    "data/canonical": ("recordio", "libsvm", "source"),
    "data/recordio": ("recordio", "parts"),
    "data/libsvm": ("libsvm", "parts"),
    "data/npz": ("npz",),
    "data/idx": ("catalog",),
    "data/movielens": ("catalog",),
    "data/parts": ("parts", "libsvm"),
    "data/folder": ("source",),
    "data/foreign": ("foreign", "source"),
    "data/tables": ("tables",),
    "data/cells": ("encoding", "tables"),
    "data/kinds": ("encoding",),
    "data/encoding": ("encoding",),
    "data/sidecar": ("sidecar",),
    "data/index": ("index",),
    "fm/model": ("model",),
    "sagemaker/archive": ("sagemaker_artifact",),
    "sagemaker/artifact": ("sagemaker_artifact",),
    "sagemaker/symbol": ("sagemaker_symbol", "sagemaker_artifact"),
    "sagemaker/ndarray": ("sagemaker_ndarray", "sagemaker_artifact"),
    "sagemaker/hyperparameters": ("sagemaker_hyperparameters",),
    "sagemaker/inference": ("sagemaker_inference",),
    "sagemaker/media": ("sagemaker_inference",),
    "sagemaker/job_shape": ("sagemaker_job_shape",),
    "sagemaker/dialect": ("sagemaker_tuning_job",),
    "sagemaker/training_job": ("sagemaker_training_job",),
    "sagemaker/tuning_data": ("sagemaker_tuning_job",),
    "sagemaker/tuning_job": ("sagemaker_tuning_job",),
    "sagemaker/tuning_ranges": ("sagemaker_tuning_job",),
    "sagemaker/warm_start": ("sagemaker_warm_start", "sagemaker_tuning_job"),
    "tune/yamlfile": ("yamlfile",),
    "tune/dimension": ("dimension", "spec"),
    "tune/places": ("places", "spec"),
    "tune/amount": ("budget", "spec"),
    "tune/studyfile": ("spec", "schema"),
    "tune/spec": ("spec", "schema"),
    "tune/folder": ("folder",),
    "tune/storage": ("storage", "store"),
    "tune/database": ("database", "store"),
    "tune/tables": ("store",),
    "tune/claims": ("claims", "store"),
    "tune/store": ("store", "sources"),
}
"""Module below ``fmtune`` to its tests, ``tests/test_<name>.py``."""

# Kernels run as Python warn of overflows that machine code has by intention.
OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning")


def files_of(names: tuple[str, ...]) -> list[str]:
    """Return the test files of these names."""
    return [f"tests/test_{name}.py" for name in dict.fromkeys(names)]
