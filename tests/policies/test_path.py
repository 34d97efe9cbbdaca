"""Coefficients, grids and times of the two paths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.errors import UserError
from noisepilot.policies import CosinePath, LinearPath

quick = settings(deadline=None, max_examples=40)
levels_and_steps = st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@quick
@given(levels_and_steps)
def test_cosine_grid_visits_leading_indices_and_ends_at_the_action(case):
    levels, steps = case
    path = CosinePath(levels)
    grid = path.grid(steps)
    assert len(grid) == steps + 1
    assert grid[-1] == 1
    assert (np.diff(grid) > 0).all()
    index = path.time_input(grid[:-1])
    assert index.tolist() == [i * (levels // steps) for i in reversed(range(steps))]
    assert path.time_input(torch.from_numpy(grid[:-1])).tolist() == index.tolist()


@quick
@given(st.integers(1, 200))
def test_cosine_preserves_variance_and_gains_data(levels):
    path = CosinePath(levels)
    t = np.arange(levels + 1) / levels
    alpha, sigma = path.alpha_sigma(t)
    assert np.abs(alpha**2 + sigma**2 - 1).max() < 1e-15 * 4
    assert (np.diff(alpha) > 0).all()
    assert (alpha[-1], sigma[-1]) == (1, 0)
    assert (alpha[:-1] ** 2 == path.alpha_bar()[::-1]).all() or np.allclose(alpha[:-1] ** 2, path.alpha_bar()[::-1])
    for ours, numbers in zip(path.alpha_sigma_tensor(torch.from_numpy(t)), (alpha, sigma), strict=True):
        assert (ours.numpy() == numbers).all()


def test_cosine_beta_is_clipped_at_the_noisiest_level():
    bar = CosinePath(20).alpha_bar()
    beta = 1 - bar / np.append(1.0, bar[:-1])
    assert beta.max() == pytest.approx(0.999, abs=1e-12)
    assert beta.argmax() == 19
    assert (beta[:-1] < 0.99).all()


def test_cosine_at_one_level_by_hand():
    """Grid {0, 1} over two points: the only beta runs into its clip."""
    (bar,) = CosinePath(1).alpha_bar()
    x = (np.array([0.0, 1.0]) + 0.008) / 1.008
    beta = min(1 - np.cos(x[1] * np.pi / 2) ** 2 / np.cos(x[0] * np.pi / 2) ** 2, 0.999)
    assert bar == pytest.approx(1 - beta, rel=1e-12)


@quick
@given(st.floats(0, 1))
def test_linear_is_a_straight_line(t):
    alpha, sigma = LinearPath().alpha_sigma(np.array([t]))
    assert (alpha[0], sigma[0]) == (t, 1 - t)
    tensors = LinearPath().alpha_sigma_tensor(torch.tensor([t], dtype=torch.float64))
    assert [v.item() for v in tensors] == [t, 1 - t]
    assert LinearPath().time_input(np.array([t]))[0] == t


def test_linear_grid():
    assert LinearPath().grid(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(UserError, match="sampler steps 0"):
        LinearPath().grid(0)


def test_training_times():
    g = torch.Generator().manual_seed(0)
    t = CosinePath(5).draw_t(2000, g, torch.device("cpu"))
    values, counts = (t * 5).unique(return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert counts.min() > 300
    t = LinearPath().draw_t(2000, g, torch.device("cpu"))
    assert t.dtype == torch.float64
    assert 0 <= t.min() < 0.01
    assert 0.99 < t.max() < 1


@pytest.mark.parametrize(("path", "predicts"), [(CosinePath(), "velocity"), (LinearPath(), "eps")])
def test_parameterisations_that_a_path_does_not_define(path, predicts):
    with pytest.raises(UserError, match=predicts):
        path.check_predicts(predicts)
