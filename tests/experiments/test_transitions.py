"""Windows as transitions: nothing crosses an episode, truncation bootstraps, termination does not."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.errors import UserError
from noisepilot.experiments.transitions import experience


def same(action):
    return action


def numbered(lengths, terminated, final=True, reward=True):
    """Step t of episode e has observation 100 e + t; an action is minus its observation, a reward 1 + it."""
    ends = np.cumsum(lengths)
    state = np.concatenate([100.0 * e + np.arange(n) for e, n in enumerate(lengths)])[:, None]
    flags = np.zeros(len(state), bool)
    flags[ends[np.array(lengths) > 0] - 1] = np.array(terminated)[np.array(lengths) > 0]
    data = {"observation.state": state, "action": -state, "next.terminated": flags}
    if reward:
        data["next.reward"] = 1 + state[:, 0]
    finals = {"observation.state": np.array([[100.0 * e + n] for e, n in enumerate(lengths)])} if final else {}
    return Episodes(data, ends, final=finals)


def test_windows_by_hand():
    found = experience(numbered([3, 2], [True, False]), same, n=2)
    assert found.obs["state"][:, 0, 0].tolist() == [0, 1, 2, 100, 101]
    assert found.next_obs["state"][:, 0, 0].tolist() == [2, 3, 3, 102, 102]
    assert found.action[..., 0].tolist() == [[0, -1], [-1, -2], [-2, -2], [-100, -101], [-101, -101]]
    assert found.reward.tolist() == [[1, 2], [2, 3], [3, 0], [101, 102], [102, 0]]
    assert found.length.tolist() == [2, 2, 1, 2, 1]
    assert found.terminated.tolist() == [False, True, True, False, False]
    assert found.obs["state"].dtype == torch.float32


def test_unknown_final_observations_are_not_made_up():
    found = experience(numbered([3, 3, 1], [True, False, False], final=False), same, n=2)
    assert found.obs["state"][:, 0, 0].tolist() == [0, 1, 2, 100, 101]
    assert found.next_obs["state"][~found.terminated][:, 0, 0].tolist() == [2, 102, 102]
    assert found.length.tolist() == [2, 2, 1, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=5).filter(
        lambda x: any(n for n, _ in x)
    ),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_nothing_crosses_an_episode(parts, n, n_obs_steps):
    lengths, terminated = (list(column) for column in zip(*parts, strict=True))
    found = experience(numbered(lengths, terminated), same, n, n_obs_steps)
    assert len(found) == sum(lengths)
    obs, following = found.obs["state"][..., 0], found.next_obs["state"][..., 0]
    episode, step = (obs[:, -1] // 100).long(), obs[:, -1] % 100
    left = torch.tensor(lengths)[episode] - step
    assert torch.equal(found.length, left.clamp(max=n).long())
    assert torch.equal(following[:, -1], obs[:, -1] + found.length)
    for view, newest in ((obs, step), (following, step + found.length)):
        back = torch.arange(1 - n_obs_steps, 1)
        assert torch.equal(view, 100 * episode[:, None] + (newest[:, None] + back).clamp(min=0))
    assert torch.equal(found.terminated, torch.tensor(terminated)[episode] & (found.length == left))
    executed = torch.arange(n) < found.length[:, None]
    rewards = torch.where(executed, 1 + obs[:, -1:] + torch.arange(n), 0.0)
    assert torch.equal(found.reward, rewards)


def test_a_termination_inside_an_episode_ends_windows():
    episodes = numbered([4], [False])
    episodes.data["next.terminated"][1] = True
    found = experience(episodes, same, n=3)
    assert found.length.tolist() == [2, 1, 2, 1]
    assert found.terminated.tolist() == [True, True, False, False]
    assert found.next_obs["state"][2:, 0, 0].tolist() == [4, 4]


def test_d4rl_tells_terminals_from_timeouts(tmp_path):
    steps = 6
    with h5py.File(tmp_path / "toy.hdf5", "w") as file:
        file["observations"] = np.arange(steps, dtype=np.float32)[:, None]
        file["next_observations"] = np.arange(steps, dtype=np.float32)[:, None] + 0.5
        file["actions"], file["rewards"] = np.zeros((steps, 1)), np.ones(steps)
        file["terminals"] = np.array([0, 0, 1, 0, 0, 0], bool)
        file["timeouts"] = np.array([0, 0, 0, 0, 0, 1], bool)
    found = experience(load(tmp_path / "toy.hdf5"), same, n=1)
    assert found.terminated.tolist() == [False, False, True, False, False, False]
    assert found.next_obs["state"][[2, 5], 0, 0].tolist() == [2.5, 5.5]
    assert found.next_obs["state"][[0, 1, 3, 4], 0, 0].tolist() == [1, 2, 4, 5]


def test_actions_are_normalised():
    assert torch.equal(experience(numbered([3], [True]), lambda a: a / 2, 1).action[:, 0, 0] * -2, torch.arange(3.0))


def test_errors():
    with pytest.raises(UserError, match="no rewards"):
        experience(numbered([3], [True], reward=False), same, 1)
    with pytest.raises(UserError, match="at least 1"):
        experience(numbered([3], [True]), same, 0)
    with pytest.raises(UserError, match="no transition"):
        experience(numbered([1, 1], [False, False], final=False), same, 1)
