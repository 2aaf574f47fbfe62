"""fmtune.sagemaker.topn: vectors for nearest-neighbour search."""

import numpy as np
import pyarrow.parquet
import pytest

from fmtune.errors import ModelError, ResourceError, UsageError
from fmtune.fm.model import Model
from fmtune.fm.pack import score
from fmtune.rows import DenseRows
from fmtune.sagemaker import topn
from fmtune.sagemaker.artifact import export_artifact
from fmtune.sagemaker.verbs import vectors


def model() -> Model:
    rng = np.random.default_rng(0)
    return Model("regressor", 0.5, rng.normal(size=9).astype("f"), rng.normal(size=(9, 3)).astype("f"))


def test_inner_products_are_the_scores(tmp_path):
    """<item, user> is the score of (user, item) less what a user has in common for all items: bias and own weight."""
    one = model()
    made = topn.write(one, tmp_path / "v.npz", (4, 9), (0, 4))
    assert made == {"items": 5, "users": 4}
    with np.load(tmp_path / "v.npz") as found:
        products = found["users"] @ found["items"].T
        assert (found["items"].shape, found["items"].dtype) == ((5, 4), np.float32)
        assert found["item_features"].tolist() == [4, 5, 6, 7, 8]
    x = np.zeros((20, 9), np.float32)
    x[np.arange(20), np.repeat(np.arange(4), 5)] = 1
    x[np.arange(20), np.tile(np.arange(4, 9), 4)] = 1
    scores = score(one, DenseRows(x, None, 9)).reshape(4, 5)
    np.testing.assert_allclose(products, scores - one.bias - one.linear[:4, None], atol=1e-5)


def test_parquet_holds_the_same(tmp_path):
    """One row a vector, with its kind and feature."""
    topn.write(model(), tmp_path / "v.parquet", (4, None), None)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert (set(table["kind"]), table["feature"]) == ({"item"}, [4, 5, 6, 7, 8])
    np.testing.assert_array_equal(np.float32(table["vector"]), topn.items(model(), np.arange(4, 9)))
    with pytest.raises(ResourceError, match="pyarrow"):
        topn.write(model(), tmp_path / "w.parquet", None, None, parquet=False)


def test_either_kind_of_model_will_do(tmp_path):
    """A model of fmtune's or SageMaker's; without ranges all features are both."""
    model().save(tmp_path / "model.fm")
    export_artifact(model(), tmp_path / "model.tar.gz")
    for name in ("model.fm", "model.tar.gz"):
        assert vectors(tmp_path / name, tmp_path / f"{name}.npz", None, None) == {"items": 9, "users": 9}
    assert vectors(tmp_path / "model.fm", tmp_path / "v.npz", "4..8", "0..") == {"items": 5, "users": 9}
    with pytest.raises(ModelError, match="cannot be read"):
        vectors(tmp_path / "none", tmp_path / "v.npz")


def test_ranges(tmp_path):
    """Both ends are included; what the model has not is refused."""
    assert (topn.span("943..2624"), topn.span("3.."), topn.span(None)) == ((943, 2625), (3, None), None)
    for bad in ("3", "a..b", "-1..3"):
        with pytest.raises(UsageError, match="a range of features"):
            topn.span(bad)
    for span in ((4, 10), (5, 5), (9, None)):
        with pytest.raises(UsageError, match="of a model that has 0 to 8"):
            topn.write(model(), tmp_path / "v.npz", span, None)
    with pytest.raises(UsageError, match="no format"):
        topn.write(model(), tmp_path / "v.csv", None, None)
