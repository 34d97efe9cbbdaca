"""Advantages with every kind of end, by hand and against Stable-Baselines3; reward scaling."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from noisepilot.algos.returns import Ends, RewardScale, Timeout, gae


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def ends(terminated: list[int], truncated: list[int]) -> Ends:
    return Ends(torch.tensor(terminated, dtype=torch.bool)[:, None], torch.tensor(truncated, dtype=torch.bool)[:, None])


REWARD, VALUE, NEXT = column(1, 2, 3), column(10, 20, 30), column(20, 30, 40)


def advantage(terminated, truncated, timeout: Timeout = "bootstrap", following=NEXT):
    e = ends(terminated, truncated).under(timeout)
    return gae(REWARD, VALUE, following, e, gamma=0.5, gae_lambda=0.5).flatten().tolist()


# TD errors with everything going on: 1 + 10 - 10 = 1, 2 + 15 - 20 = -3, 3 + 20 - 30 = -7; each carries 1/4 back.
BY_HAND = [
    ([0, 0, 0], [0, 0, 0], "bootstrap", NEXT, [1 + (-3 - 7 / 4) / 4, -3 - 7 / 4, -7]),
    ([0, 1, 0], [0, 0, 0], "bootstrap", NEXT, [1 - 18 / 4, -18, -7]),
    # Truncated: the value of the true final observation, 36, not of the next episode's first; nothing carried over.
    ([0, 0, 0], [0, 1, 0], "bootstrap", column(20, 36, 40), [1 + 0, 0, -7]),
    ([0, 0, 1], [0, 0, 0], "bootstrap", NEXT, [1 + (-3 - 27 / 4) / 4, -3 - 27 / 4, -27]),
    ([0, 0, 0], [0, 0, 1], "bootstrap", NEXT, [1 + (-3 - 7 / 4) / 4, -3 - 7 / 4, -7]),
    ([0, 1, 0], [0, 1, 0], "bootstrap", NEXT, [1 - 18 / 4, -18, -7]),
    ([0, 0, 0], [0, 1, 0], "terminal", column(20, 36, 40), [1 - 18 / 4, -18, -7]),
    ([0, 0, 0], [0, 1, 0], "leak", NEXT, [1 + (-3 - 7 / 4) / 4, -3 - 7 / 4, -7]),
    ([0, 1, 0], [0, 0, 0], "leak", NEXT, [1 - 18 / 4, -18, -7]),
]


@pytest.mark.parametrize(("terminated", "truncated", "timeout", "following", "expected"), BY_HAND)
def test_gae_by_hand(terminated, truncated, timeout, following, expected):
    assert advantage(terminated, truncated, timeout, following) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6))
def test_gae_equals_stable_baselines(decisions, slots, gamma, gae_lambda, seed):
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, decisions, slots))
    last, over = rng.normal(size=slots), rng.random((decisions, slots)) < 0.3
    box = Box(-1, 1, (1,))
    buffer = RolloutBuffer(decisions, box, box, gae_lambda=gae_lambda, gamma=gamma, n_envs=slots)
    buffer.rewards, buffer.values, buffer.advantages = reward, value, np.zeros_like(reward)
    buffer.episode_starts = np.concatenate([np.zeros((1, slots)), over[:-1]])
    buffer.compute_returns_and_advantage(torch.from_numpy(last), over[-1])

    following = torch.from_numpy(np.concatenate([value[1:], last[None]]))
    e = Ends(torch.from_numpy(over), torch.zeros(decisions, slots, dtype=torch.bool))
    ours = gae(torch.from_numpy(reward), torch.from_numpy(value), following, e, gamma=gamma, gae_lambda=gae_lambda)
    assert np.abs(ours.numpy() - buffer.advantages).max() < 1e-12


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 10), st.integers(1, 9), st.integers(0, 10**6))
def test_nothing_crosses_the_end_of_an_episode(decisions, cut, seed):
    g = torch.Generator().manual_seed(seed)
    reward, value, following = torch.randn(3, decisions + cut, 2, generator=g, dtype=torch.float64)
    truncated = torch.zeros(decisions + cut, 2, dtype=torch.bool)
    truncated[cut - 1] = True
    e = Ends(torch.zeros_like(truncated), truncated)
    whole = gae(reward, value, following, e, gamma=0.9, gae_lambda=0.8)
    reward[cut:] += 100
    assert (gae(reward, value, following, e, gamma=0.9, gae_lambda=0.8)[:cut] == whole[:cut]).all()


def test_lambda_1_without_values_is_the_discounted_return():
    reward = column(1, 2, 4)
    zero = torch.zeros_like(reward)
    returns = gae(reward, zero, zero, ends([0, 0, 1], [0, 0, 0]), gamma=0.5, gae_lambda=1.0)
    assert returns.flatten().tolist() == [3, 4, 4]


def test_readings_of_a_time_limit():
    e = ends([0, 1, 0, 1], [1, 0, 0, 1])
    assert e.ended.flatten().tolist() == [True, True, False, True]
    assert e.under("bootstrap") is e
    terminal, leak = e.under("terminal"), e.under("leak")
    assert (terminal.terminated == e.ended).all()
    assert (leak.ended == e.terminated).all()


def rollouts():
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(7, 3, generator=g) + 1, torch.rand(7, 3, generator=g) < 0.2) for _ in range(3)]


def test_reward_scale_by_hand():
    """Returns so far 1, 1 + .5 * 1, then a new episode: 4."""
    scale = RewardScale(gamma=0.5, count=0.0)
    reward = column(1, 1, 4)
    scaled = scale(reward, ends([0, 1, 0], [0, 0, 0]).ended)
    var = float(np.var([1, 1.5, 4], ddof=1))
    assert scaled.flatten().tolist() == pytest.approx((reward.flatten() / var**0.5).tolist(), rel=1e-7)
    assert scale.running.tolist() == [4]
    assert not scale.restart[0]
    assert (scale(column(1e9, 0, 0), ends([0, 0, 0], [0, 0, 0]).ended) <= 10).all()


def test_reward_scale_merges_moments():
    scale, seen = RewardScale(gamma=0.0, count=0.0), []
    for reward, ended in rollouts():
        scale(reward, ended)
        seen.append(reward)
    everything = torch.cat(seen).double()
    assert scale.mean == pytest.approx(everything.mean().item(), rel=1e-6)
    assert scale.var == pytest.approx(everything.var().item(), rel=0.05)  # n - 1 at every merge, as the official code


def test_reward_scale_resumes_equal():
    scale = RewardScale()
    first, second, third = rollouts()
    scale(*first)
    saved = asdict(scale)
    expected = [scale(*second), scale(*third)]
    resumed = RewardScale(**saved)
    for rollout, value in zip((second, third), expected, strict=True):
        assert (resumed(*rollout) == value).all()
    assert (resumed.mean, resumed.var, resumed.count) == (scale.mean, scale.var, scale.count)
