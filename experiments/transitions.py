"""Demonstrations as off-policy algorithms see them: every window of n actions becomes one transition.

A window starts at every step of an episode and crosses neither its end nor a termination. The last ones are shorter
than n: their reward is 0 beyond `length`, their action repeats the last. What follows a window is the observation
after its last executed action; where a set does not hold the one after an episode's last action and the episode did
not terminate there, that action is left out, for nothing is known of what it led to.
Shapes: T steps, E episodes, B windows, H history (n_obs_steps), n actions per decision.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..algos.replay import Experience
from ..datasets.chunks import window_rows
from ..datasets.episodes import Episodes
from ..datasets.validity import OBS
from ..errors import UserError


def experience(
    episodes: Episodes,
    normalize: Callable[[Tensor], Tensor],
    n: int,
    n_obs_steps: int = 1,
    device: str | torch.device = "cpu",
) -> Experience:
    """All windows of a set.

    Args:
        episodes: demonstrations with rewards.
        normalize: physical actions (B, n, A) to those that the algorithm stores.
        n: actions per decision.
        n_obs_steps: observations per decision; before the first step the first one repeats.
        device: where the tensors shall lie.

    Raises:
        UserError: where no rewards are recorded, n or n_obs_steps is below one, or no window is left.
    """
    if min(n, n_obs_steps) < 1:
        raise UserError(f"n_action_steps {n} and n_obs_steps {n_obs_steps} must be at least 1")
    if "next.reward" not in episodes.data:
        raise UserError("the data have no rewards ('next.reward'): train on them with `pretrain`, or record rewards")
    terminated = _flags(episodes)
    ends = np.union1d(episodes.ends[episodes.ends > 0], np.flatnonzero(terminated) + 1)
    recorded = all(key in episodes.final for key in episodes.obs_keys)
    known = terminated[ends - 1] | np.isin(ends, episodes.ends if recorded else [])
    row, episode = window_rows(ends, 1)
    start, end = np.concatenate([[0], ends[:-1]])[episode], (ends - ~known)[episode]
    row, episode, start, end = (part[row < end] for part in (row, episode, start, end))
    if len(row) == 0:
        raise UserError(
            "the data hold no transition: every episode has a single step, and nothing after it is recorded"
        )
    length = np.minimum(n, end - row)
    steps = np.arange(n)
    executed = steps < length[:, None]
    action_rows = np.minimum(row[:, None] + steps, end[:, None] - 1)
    reward = np.where(executed, episodes.data["next.reward"].astype(np.float32)[action_rows], 0.0)
    history = _History(episodes, ends, n_obs_steps, device)
    action = torch.from_numpy(episodes.data["action"].astype(np.float32)[action_rows]).to(device)
    return Experience(
        obs=history(row, start, episode),
        action=normalize(action),
        reward=torch.from_numpy(reward.astype(np.float32)).to(device),
        length=torch.from_numpy(length).to(device),
        terminated=torch.from_numpy(terminated[row + length - 1]).to(device),
        next_obs=history(row + length, start, episode),
    )


def _flags(episodes: Episodes) -> np.ndarray:
    """(T,) bool: what ended for good; sets that do not say so ended by time alone."""
    flags = episodes.data.get("next.terminated")
    return np.zeros(episodes.num_steps, bool) if flags is None else flags > 0


class _History:
    """Observations by row, where the row after a part's last is what followed it."""

    def __init__(self, episodes: Episodes, ends: np.ndarray, n_obs_steps: int, device: str | torch.device) -> None:
        self.back, self.device = np.arange(1 - n_obs_steps, 1), device
        self.obs = {
            key.removeprefix(OBS): np.insert(episodes.data[key], ends, self._after(episodes, key, ends), axis=0)
            for key in episodes.obs_keys
        }

    def __call__(self, row: np.ndarray, start: np.ndarray, part: np.ndarray) -> dict[str, Tensor]:
        """Name -> (B, H, ...) up to `row`, not before `start`, in parts of the set."""
        rows = np.maximum(row[:, None] + self.back, start[:, None]) + part[:, None]
        return {name: self._tensor(value[rows]) for name, value in self.obs.items()}

    def _after(self, episodes: Episodes, key: str, ends: np.ndarray) -> np.ndarray:
        after = episodes.data[key][np.minimum(ends, episodes.num_steps - 1)]
        if key in episodes.final:
            filled = episodes.lengths > 0
            after[np.isin(ends, episodes.ends)] = episodes.final[key][filled]
        return after

    def _tensor(self, value: np.ndarray) -> Tensor:
        return torch.from_numpy(value if value.dtype == np.uint8 else value.astype(np.float32)).to(self.device)
