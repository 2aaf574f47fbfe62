"""Machine: ``FMRegressor`` and ``FMClassifier``, factorization machines with scikit-learn's interface.

Parameters have SageMaker's names; their defaults are other ones, since a scikit-learn user fits once: see
``docs/sklearn.md`` for how they were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fmtune.data.canonical import warn
from fmtune.data.encoding import Encoder
from fmtune.errors import FmtuneError, ResourceError, UsageError
from fmtune.estimators.defaults import DECAYS, batch_of, decay_of
from fmtune.estimators.frames import chosen, columns_of, fitted, numbered, pandas_of
from fmtune.estimators.merging import merged
from fmtune.estimators.scaling import Float64, Scaling
from fmtune.extras import install
from fmtune.fm.draws import interval
from fmtune.fm.fit import Channels, train
from fmtune.fm.groups import Groups
from fmtune.fm.hyperparameters import Hyperparameters
from fmtune.fm.model import Model
from fmtune.fm.pack import predict, score
from fmtune.machine import cores
from fmtune.rows import Rows, SparseRows

try:
    from scipy.special import expit, logit
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_array, check_random_state, column_or_1d
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ResourceError("scikit-learn 1.6 or later is not installed", hint=install("sklearn")) from error

# A schedule would go by the epochs of a fit; these have no end that is known.
_ONE_EPOCH: dict[str, Any] = {"epochs": 1, "lr_schedule": "constant", "lr_warmup": 0, "average_last": 1}
_OWN = ("random_state", "categorical_features", "min_count")
_EPOCHS, _SWEEPS = 30, 100
# partial_fit cannot know how often a feature will come back; als has no mini-batches.
_PLAIN_DECAY = 0.001




def _goes_on(estimator: Any) -> bool:
    if estimator.solver != "sgd":
        raise AttributeError(f"partial_fit is of solver='sgd', not of {estimator.solver!r}")
    return True


@dataclass(eq=False, repr=False, kw_only=True)
class _Machine(BaseEstimator):  # type: ignore[misc]
    """What both estimators share; parameters as in ``fmtune.fm.hyperparameters.PARAMETERS``, and three more."""

    solver: str = "sgd"
    num_factors: int = 8
    epochs: int | None = None
    mini_batch_size: int | None = None
    bias_lr: float = 0.01
    linear_lr: float = 0.01
    factors_lr: float = 0.01
    lr_schedule: str = "constant"
    lr_warmup: int = 0
    average_last: int = 1
    positive_weight: float = 1.0
    bias_wd: float = 0.0
    linear_wd: float | None = None
    factors_wd: float | None = None
    bias_init_method: str = "constant"
    bias_init_sigma: float = 0.01
    bias_init_scale: float = 0.01
    bias_init_value: float = 0.0
    linear_init_method: str = "constant"
    linear_init_sigma: float = 0.01
    linear_init_scale: float = 0.01
    linear_init_value: float = 0.0
    factors_init_method: str = "normal"
    factors_init_sigma: float = 0.05
    factors_init_scale: float = 0.05
    factors_init_value: float = 0.0
    clip_gradient: float | None = None
    eps: float | None = None
    rescale_grad: float | None = None
    use_bias: bool = True
    use_linear: bool = True
    optimizer: str = "adam"
    linear_l1: float = 0.0
    factors_l1: float = 0.0
    lazy: bool = True
    shuffle: str = "once"
    patience: int = 0
    pad_last_batch: bool = False
    exact: bool = True
    categorical_features: Any = "from_dtype"
    min_count: int = 1
    random_state: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Train a model.

        Parameters
        ----------
        X
            An array or a SciPy matrix (n, features), or a pandas, polars or pyarrow frame.  A frame's columns of
            text, categories or objects, and those of ``categorical_features`` (names, positions or a mask), are
            one-hot encoded; other columns, and those of an array, are scaled.
        y
            Labels (n,).
        sample_weight
            What each row counts (n,), at least 0; rows of weight 0 are left out.
        eval_set
            ``(X, y)``, or a list with one such pair: ``curve_`` has its score after each epoch, and ``patience``
            goes by it.
        """
        self._classes(y)
        self._begin(X)
        x, labels, weights = self._given(X, y, sample_weight, reset=True)
        self._scale(x, labels, weights)
        test = None
        if self.patience and eval_set is None:
            warn(f"patience={self.patience} has no eval_set to go by: all epochs are made")
        if eval_set is not None:
            pair = eval_set[0] if isinstance(eval_set, list) else eval_set
            test = self._rows(self._matrix(pair[0]), self._labels(pair[1]), None)
        return self._train(self._rows(x, labels, weights), test)

    def _more(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """Go on from the model as it stands, for one epoch."""
        first = not hasattr(self, "model_")
        if first:
            self._classes(y if classes is None else classes)
            self._begin(X)
        x, labels, weights = self._given(X, y, sample_weight, reset=first)
        if first:
            self._scale(x, labels, weights)
        settings = _ONE_EPOCH | {name: _PLAIN_DECAY for name in DECAYS if getattr(self, name) is None}
        return self._train(self._rows(x, labels, weights), None, start=None if first else self._scaled, **settings)

    # ---- what goes in ----

    def _begin(self, X: Any) -> None:
        """Learn from a frame which columns name something, and their values."""
        self.encoder_: Encoder | None = None
        frame = pandas_of(X)
        self._numbered = not hasattr(frame, "columns")
        if self._numbered and chosen(self.categorical_features):
            frame = numbered(X)
        if hasattr(frame, "columns"):
            frame = frame.rename(columns=str)
            columns = columns_of(frame, self.categorical_features, self.min_count, self._numbered)
            if columns is not None:
                self.encoder_ = fitted(frame, columns)

    def _matrix(self, X: Any, reset: bool = False) -> Any:
        """Return an array or CSR matrix as it is, or the sparse rows of a frame, checked against what was fitted."""
        X = pandas_of(X)
        if self.encoder_ is None:
            kinds = (np.float64, np.float32)
            x = validate_data(self, X, accept_sparse="csr", dtype=kinds, reset=reset)
            if hasattr(x, "has_canonical_format") and not x.has_canonical_format:
                x = x.copy()
                x.sum_duplicates()
            return x
        if not self._numbered and not hasattr(X, "columns"):
            raise ValueError("the estimator was fitted on a frame: give it one with the same columns")
        validate_data(self, X, reset=reset, skip_check_array=True)
        try:
            return self.encoder_.rows(numbered(X) if self._numbered else X.rename(columns=str), labels=False)
        except FmtuneError as error:
            raise ValueError(str(error)) from error

    def _given(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Any, Float64, Float64 | None]:
        """Return features, labels as numbers and weights (None: all 1), of the rows that count."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        x = self._matrix(X, reset)
        n = x.n if isinstance(x, SparseRows) else x.shape[0]
        labels = self._labels(y)
        if len(labels) != n:
            raise ValueError(f"X has {n} rows and y {len(labels)}: inconsistent numbers of samples")
        if sample_weight is None:
            # Merging makes weights, which a sampled classifier has no use for.
            return (x, labels, None) if self.solver == "mcmc" else merged(x, labels, None)
        weights = _check_sample_weight(sample_weight, labels, dtype=np.float64, ensure_non_negative=True)
        keep = np.flatnonzero(weights)
        if not len(keep):
            raise ValueError("sample_weight is zero for every row")
        if len(keep) < n:
            x = x.take(keep) if isinstance(x, SparseRows) else x[keep]
        return merged(x, labels[keep], weights[keep])

    def _scale(self, x: Any, labels: Float64, weights: Float64 | None) -> None:
        weights = np.ones(len(labels)) if weights is None else weights
        wide = x.feature_dim if isinstance(x, SparseRows) else 0
        scaling = Scaling.none(wide) if wide else Scaling.of(x, weights)
        if len(scaling.far):
            names = getattr(self, "feature_names_in_", [f"x{at}" for at in range(len(scaling.scale))])
            far = ", ".join(str(names[at]) for at in scaling.far[:20])
            warn(f"far from 0 for their deviation: {far}; predict is exact, but model_, whose units are those of X, is "
                 "not: subtract the mean before fit to save it")  # fmt: skip
        self._scaling = scaling.of_labels(labels, weights) if self._kind == "regressor" else scaling

    def _rows(self, x: Any, labels: Float64 | None, weights: Float64 | None) -> Rows:
        small = None if weights is None else weights.astype(np.float32)
        if not isinstance(x, SparseRows):
            return self._scaling.rows(x, labels, small)
        y = None if labels is None else ((labels - self._scaling.centre) / self._scaling.spread).astype(np.float32)
        return replace(x, labels=y, weights=small)

    # ---- training ----

    def _hyperparameters(self, rows: Rows, **more: Any) -> Hyperparameters:
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OWN}
        own["mini_batch_size"] = self.mini_batch_size or batch_of(rows.n)
        own["epochs"] = (_EPOCHS if self.solver == "sgd" else _SWEEPS) if self.epochs is None else self.epochs
        open_decays = [name for name in DECAYS if {**own, **more}[name] is None]
        own |= dict.fromkeys(open_decays, _PLAIN_DECAY)
        seed = self.random_state if isinstance(self.random_state, int | np.integer) else None
        if seed is None:
            seed = 0 if self.random_state is None else check_random_state(self.random_state).randint(2**31)
        own |= {"predictor_type": self._kind, "seed": int(seed), "shuffle_seed": int(seed), **more}
        try:
            h = Hyperparameters.of(own)
        except FmtuneError as error:
            raise ValueError(str(error)) from error
        if h.solver != "sgd":
            return h
        decay = decay_of(rows, h.mini_batch_size, h.lazy)
        return replace(h, linear_wd=decay if "linear_wd" in open_decays else h.linear_wd,
                       factors_wd=decay if "factors_wd" in open_decays else h.factors_wd)  # fmt: skip

    def _train(self, rows: Rows, test: Rows | None, start: Model | None = None, **more: Any) -> Self:
        h = self._hyperparameters(rows, **more)
        named = self.encoder_.groups() if self.encoder_ is not None else {}
        groups = Groups.of(named) if named else None
        try:
            done = train(Channels(rows, test, groups), h, layout=rows.layout, threads=cores(), start=start)
        except UsageError as error:
            raise ValueError(str(error)) from error
        self._scaled = done.model
        facts: dict[str, Any] = {"hyperparameters": h.changed(), "metrics": done.metrics, "epochs": done.epochs}
        if self.encoder_ is not None:
            facts["encoding"] = self.encoder_.to_json()
        self.model_ = replace(self._scaling.unscaled(done.model), facts=facts)
        self.n_iter_ = done.epochs
        self.curve_ = np.array(done.curve) * self._scaling.spread
        return self

    def _scores(self, X: Any, link: bool) -> NDArray[np.float32]:
        model, rows, scaling = self._asked(X)
        return scaling.labels(predict(model, rows) if link else score(model, rows))

    def _interval(self, X: Any, level: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model, rows, scaling = self._asked(X)
        try:
            low, high = interval(model, rows, level)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return scaling.labels(low), scaling.labels(high)

    def _asked(self, X: Any) -> tuple[Model, SparseRows, Scaling]:
        """Return the model to ask, the rows to ask it of, and whose labels its scores are."""
        check_is_fitted(self, "model_")
        x = self._matrix(X)
        if isinstance(x, np.ndarray):
            # In float32 and the units of X, columns far from 0 would lose what tells their values apart.
            return self._scaled, self._scaling.rows(x, None, None).to_sparse(), self._scaling
        plain = Scaling.none(self.model_.feature_dim)
        return self.model_, x if isinstance(x, SparseRows) else plain.rows(x, None, None).to_sparse(), plain

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class FMRegressor(RegressorMixin, _Machine):  # type: ignore[misc]
    """Factorization machine for any number.

    Attributes
    ----------
    model_ : fmtune.Model
        The model, in the units of ``X`` and ``y``; ``model_.save(path)`` is what ``fmtune serve`` takes.
    encoder_ : Encoder or None
        How a frame's columns became features.
    curve_ : float64 (epochs,)
        RMSE on ``eval_set`` after each epoch; empty without one.
    n_iter_ : int
        Epochs of the model.
    """

    _kind = "regressor"

    @available_if(_goes_on)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch more; the first call learns categories and scales, the optimizer begins anew each time."""
        return self._more(X, y, sample_weight)

    def predict(self, X: Any) -> NDArray[np.float32]:
        """Return predictions, float32 (n,)."""
        return self._scores(X, link=True)

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the ends between which a new label lies with a probability, float32 (n,) each; of solver="mcmc"."""
        return self._interval(X, level)

    def _classes(self, y: Any) -> None: ...

    def _labels(self, y: Any) -> Float64:
        labels: Float64 = column_or_1d(check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"), warn=True)
        return labels


@dataclass(eq=False, repr=False, kw_only=True)
class FMClassifier(ClassifierMixin, _Machine):  # type: ignore[misc]
    """Factorization machine for two classes.

    Attributes
    ----------
    classes_ : (2,)
        The labels; probabilities are of the second.
    model_, encoder_, n_iter_
        As in :class:`FMRegressor`.
    curve_ : float64 (epochs,)
        Log loss on ``eval_set`` after each epoch; empty without one.
    """

    _kind = "binary_classifier"

    @available_if(_goes_on)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch more; the first call needs ``classes`` unless ``y`` holds both."""
        return self._more(X, y, sample_weight, classes)

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return the logarithm of the odds of the second class, float32 (n,)."""
        if getattr(self, "solver", None) == "mcmc":
            return np.asarray(logit(self._scores(X, link=True).astype(np.float64)), np.float32)
        return self._scores(X, link=False)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return both classes' probabilities, float32 (n, 2)."""
        second = expit(self.decision_function(X).astype(np.float64))
        return np.column_stack([1 - second, second]).astype(np.float32)

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the ends between which the second class's probability lies, float32 (n,) each; of solver="mcmc"."""
        return self._interval(X, level)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return classes (n,)."""
        second = self.decision_function(X) > 0
        return np.asarray(self.classes_[second.astype(np.int64)])

    def _classes(self, y: Any) -> None:
        """Learn which two classes there are."""
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_.tolist()}: a classifier needs two classes")

    def _labels(self, y: Any) -> Float64:
        """Return 1 for the second class."""
        y = column_or_1d(y)
        if strangers := set(np.unique(y).tolist()) - set(self.classes_.tolist()):
            raise ValueError(f"y has labels {sorted(strangers)} that are none of the classes {self.classes_.tolist()}")
        return np.asarray(y == self.classes_[1], np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
