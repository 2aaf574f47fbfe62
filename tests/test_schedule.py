"""Learning-rate schedules, averages of the last epochs and weights of a class: what each does to a lane."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from fmtune.fm.arena import knobs_of
from fmtune.fm.feed import Feed, Recipe
from fmtune.fm.fit import Channels, train
from fmtune.fm.hyperparameters import PARAMETERS, Hyperparameters
from fmtune.fm.pack import Pack, bytes_of, score
from fmtune.fm.schedule import SCHEDULES, factor, moves
from tests import fm_reference as reference

RATES = {"mini_batch_size": 25, "linear_lr": 0.05, "factors_lr": 0.05, "num_factors": 3, "epochs": 6}


def _h(**values: object) -> Hyperparameters:
    return Hyperparameters.of({**RATES, "predictor_type": "binary_classifier", **values})


def test_every_schedule_can_be_chosen_and_keeps_a_rate() -> None:
    """The choices are the table's names; each begins at 1, never rises after the warm-up and stays above 0."""
    assert PARAMETERS["lr_schedule"].choices == tuple(SCHEDULES)
    for name in SCHEDULES:
        h = _h(lr_schedule=name, lr_warmup=3, epochs=13)
        factors = [factor(h, epoch) for epoch in range(13)]
        assert factors[:4] == [0.25, 0.5, 0.75, 1.0] and min(factors) > 0
        assert (np.diff(factors[3:]) <= 0).all()
    assert not moves(_h()) and not moves(_h(optimizer="ftrl", lr_schedule="linear")) and moves(_h(lr_warmup=1))


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_a_schedule_is_training_at_these_rates(layout: str) -> None:
    """Plain steps at rates set by hand from epoch to epoch give the same model; neighbours do not matter."""
    data, scheduled = Feed(reference.rows(100, 12, 4)), _h(optimizer="sgd", lr_schedule="linear", lr_warmup=2)
    pack = Pack(data, Recipe.of(scheduled, layout))
    pack.change(enter=[_h(optimizer="sgd", seed=3)])
    pack.epoch()
    (lane,) = pack.change(enter=[scheduled])
    plain = scheduled.replace(lr_schedule="constant", lr_warmup=0)
    by_hand = Pack(data, Recipe.of(plain, layout))
    (other,) = by_hand.change(enter=[plain])
    for epoch in range(6):
        pack.epoch()
        rates = knobs_of(plain)[:, 0] * factor(scheduled, epoch)
        by_hand._arena.rescale(0, rates.astype(np.float32))
        by_hand.epoch()
    assert pack.model(lane).to_bytes() == by_hand.model(other).to_bytes()


def test_a_training_cut_short_is_the_beginning_of_the_whole() -> None:
    """Rates go by ``epochs``, so the winner trained again to its best epoch has the score of that epoch."""
    data = reference.rows(120, 10, 3)
    channels, h = Channels(data.slice(0, 80), data.slice(80, 120)), _h(lr_schedule="cosine")
    whole, part = train(channels, h), train(channels, h, epochs=4)
    assert part.curve == whole.curve[:4] and part.curve != train(channels, h.replace(epochs=4)).curve


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_an_average_is_the_mean_of_the_last_epochs(layout: str) -> None:
    """Score and model are those of the mean parameters of the last three epochs, beside a lane without."""
    data = reference.rows(100, 12, 4)
    rows = data.to_dense() if layout == "dense" else data
    pack = Pack(Feed(data), Recipe.of(_h(), layout))
    averaged, plain = pack.change(enter=[_h(average_last=3), _h()])
    seen = []
    for _ in range(5):
        pack.epoch()
        seen.append(pack.model(plain))
    model = pack.model(averaged, note=1)
    np.testing.assert_allclose(model.factors, np.mean([m.factors for m in seen[-3:]], axis=0), atol=1e-7)
    np.testing.assert_allclose(model.linear, np.mean([m.linear for m in seen[-3:]], axis=0), atol=1e-7)
    assert model.facts == {"note": 1}
    both = pack.score(rows)
    np.testing.assert_array_equal(both[0], score(model, rows))
    np.testing.assert_array_equal(both[1], score(seen[-1], rows))


def test_what_an_average_takes_is_counted() -> None:
    """It is summed model by model: beside those that are averaged it takes their sum and one more."""
    h = _h(average_last=40, num_factors=8)
    pack = Pack(Feed(reference.rows(30, 12, 4).widen(5_000)), Recipe.of(h, "sparse"))
    (lane,) = pack.change(enter=[h])
    for _ in range(40):
        pack.epoch()
    tracemalloc.start()
    pack.model(lane)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 4 * 9 * 5_000 + 10_000 < bytes_of(h, 5_000) - bytes_of(h.replace(average_last=1), 5_000)
    assert bytes_of(h, 5_000, 10**6) - bytes_of(h, 5_000) == 4 * 25 * 9  # the sums of a mini-batch's rows
    assert bytes_of(h, 5_000, 7) - bytes_of(h, 5_000) == 4 * 7 * 9


@pytest.mark.parametrize("solver", ["sgd", "als"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_class_weight_is_a_weight_of_its_rows(solver: str, weighted: bool) -> None:
    """positive_weight gives the model that the same weights on the rows give, times those that rows have."""
    data = reference.rows(80, 10, 3)
    assert data.labels is not None
    own = np.linspace(0.5, 2.0, 80, dtype=np.float32) if weighted else np.ones(80, np.float32)
    given = replace(data, weights=own * np.where(data.labels > 0.5, np.float32(3.0), np.float32(1.0)))
    h = _h(solver=solver, epochs=3)
    by_class = train(Channels(replace(data, weights=own) if weighted else data), h.replace(positive_weight=3.0))
    assert by_class.model.to_bytes() == train(Channels(given), h).model.to_bytes()
    assert score(by_class.model, data).mean() > score(train(Channels(data), h).model, data).mean()


def test_a_regressor_has_no_classes() -> None:
    """positive_weight does not touch a regressor, whose labels may be 1 by chance."""
    data = reference.rows(40, 6, 2)
    h = _h(predictor_type="regressor")
    one, other = (train(Channels(data), h.replace(positive_weight=w)).model.to_bytes() for w in (1.0, 5.0))
    assert one == other
