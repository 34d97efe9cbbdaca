"""What every method with a ratio shares."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.algos import ppo
from noisepilot.algos.ppo import (
    clipped_surrogate,
    explained_variance,
    ratio_statistics,
    shuffled_minibatches,
    value_error,
)

F64 = torch.float64


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # better already: no further
        (0.5, 2.0, -1.0, -1.0),  # worse: pulled back
        (1.5, -2.0, 3.0, 3.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("clip", [0.2, torch.full((1,), 0.2, dtype=F64)])
def test_clipped_surrogate_by_hand(ratio, advantage, expected, slope, clip):
    log_ratio = torch.tensor([math.log(ratio)], dtype=F64, requires_grad=True)
    loss = clipped_surrogate(log_ratio, torch.tensor([advantage], dtype=F64), clip)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    (grad,) = torch.autograd.grad(loss.sum(), log_ratio)
    assert grad.item() == pytest.approx(slope, abs=1e-12)  # d ratio / d log ratio = ratio, times -advantage
    assert loss.dtype == F64


def test_ratio_statistics_by_hand():
    sums = ratio_statistics(torch.tensor([0.0, math.log(1.3), math.log(0.9)], dtype=F64), 0.2)
    assert sums["ratio"].item() == pytest.approx(3.2)
    assert sums["clip_fraction"].item() == 1
    assert sums["approx_kl"].item() == pytest.approx(0.2 - math.log(1.3) - math.log(0.9))


def test_value_error_by_hand():
    value, target, old = (torch.tensor([v], dtype=F64) for v in (3.0, 1.0, 0.5))
    assert value_error(value, target, old, None).item() == 2
    assert value_error(value, target, old, 1.0).item() == 2  # kept at 1.5 the error is smaller
    assert value_error(torch.tensor([1.0], dtype=F64), target, torch.tensor([4.0], dtype=F64), 1.0).item() == 2


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 3), st.integers(0, 10**6))
def test_minibatches_cover_each_index_at_most_once_per_epoch(total, size, epochs, seed):
    g = torch.Generator().manual_seed(seed)
    batches = list(shuffled_minibatches(total, size, epochs, g, torch.device("cpu")))
    per_epoch = max(total // size, 1)
    assert [len(b) for b in batches] == [min(size, total)] * per_epoch * epochs  # only a partial one is left out
    for epoch in range(epochs):
        used = torch.cat(batches[epoch * per_epoch :][:per_epoch])
        assert len(used.unique()) == len(used)
        assert ((used >= 0) & (used < total)).all()


def test_minibatches_are_shuffled_and_seeded():
    def first(seed):
        g = torch.Generator().manual_seed(seed)
        return next(shuffled_minibatches(100, 50, 1, g, torch.device("cpu"))).tolist()

    assert first(0) == first(0) != first(1)
    assert first(0) != sorted(first(0))


def test_micro_batches_split_and_keep_the_order(monkeypatch):
    monkeypatch.setattr(ppo, "MICRO_BATCH", 4)
    parts = ppo.micro_batches(torch.arange(10))
    assert [len(p) for p in parts] == [4, 4, 2]
    assert torch.cat(parts).tolist() == list(range(10))


def test_explained_variance():
    target = torch.tensor([1.0, 2, 3])
    assert explained_variance(target, target) == 1
    assert explained_variance(torch.full((3,), 9.0), target) == 0
