"""Windows over episodes: T observations up to a step and the H actions from it on, gathered on one device.

A window starts at every step of an episode. Before the first step the first observation repeats. Beyond the
last step the last action repeats (`pad`, as Diffusion Policy does); without padding, windows that would cross
the end are left out, as in DPPO. The repeats are stored once per episode, so that every window is a strided
view and a batch one `index_select` per array.

Shapes: B batch, T history, H horizon, A action dim, W windows, E episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float, Int
from .episodes import Episodes
from .validity import OBS


@dataclass(frozen=True)
class Batch:
    """Windows of raw values in physical units."""

    obs: Mapping[str, Tensor]
    """name -> (B, T, ...), the newest last; float32, pictures stay uint8"""
    action: Float[Tensor, "B H A"]


class Chunks:
    """All windows of a set, resident on `device`.

    With `past_actions` that many actions before the step follow those from it on, in order of time; before the first
    step the first action repeats.

    Raises:
        UserError: for a horizon or history below one, or one that leaves no window.
    """

    def __init__(
        self,
        episodes: Episodes,
        horizon: int,
        n_obs_steps: int = 1,
        device: str | torch.device = "cpu",
        *,
        pad: bool = True,
        past_actions: int = 0,
    ) -> None:
        if min(horizon, n_obs_steps) < 1:
            raise UserError(f"horizon {horizon} and n_obs_steps {n_obs_steps} must be at least 1")
        self.horizon, self.n_obs_steps, self.past_actions = horizon, n_obs_steps, past_actions
        self.device = torch.device(device)
        ends = np.unique(episodes.ends[episodes.ends > 0])  # episodes without steps have no windows
        row, episode = window_rows(ends, 1 if pad else horizon)
        if len(row) == 0:
            longest = int(episodes.lengths.max())
            raise UserError(f"no episode is as long as horizon {horizon} (longest: {longest}): shorten it or pad")
        action_rows, obs_rows = (
            padded_rows(ends, before=past_actions, after=horizon - 1),
            padded_rows(ends, before=n_obs_steps - 1),
        )
        self.action = self._views(episodes.data["action"][action_rows], past_actions + horizon)
        self.obs = {
            key.removeprefix(OBS): self._views(episodes.data[key][obs_rows], n_obs_steps) for key in episodes.obs_keys
        }
        self._action_view = torch.from_numpy(row + episode * (past_actions + horizon - 1)).to(self.device)  # (W,)
        self._obs_view = torch.from_numpy(row + episode * (n_obs_steps - 1)).to(self.device)  # (W,)

    def __len__(self) -> int:
        return len(self._action_view)

    def batch(self, indices: Int[Tensor, " B"]) -> Batch:
        """The windows `indices`."""
        indices = indices.to(self.device)
        obs_view = self._obs_view.index_select(0, indices)
        action = self.action.index_select(0, self._action_view.index_select(0, indices))
        return Batch(
            obs={name: views.index_select(0, obs_view) for name, views in self.obs.items()},
            action=action.roll(-self.past_actions, 1) if self.past_actions else action,
        )

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Batch:
        """Windows drawn with replacement; `generator` lives on the chunks' device."""
        return self.batch(torch.randint(len(self), (batch,), generator=generator, device=self.device))

    def epoch(
        self, batch: int, generator: torch.Generator | None = None, *, drop_last: bool = False
    ) -> Iterator[Batch]:
        """Every window once, shuffled; a smaller last batch is left out if `drop_last`."""
        order = torch.randperm(len(self), generator=generator, device=self.device)
        for indices in order.split(batch):
            if not (drop_last and len(indices) < batch):
                yield self.batch(indices)

    def _views(self, value: np.ndarray, width: int) -> Tensor:
        """Every run of `width` rows, (rows - width + 1, width, ...), without a copy of its own."""
        dtype = np.uint8 if value.dtype == np.uint8 else np.float32
        return torch.from_numpy(value.astype(dtype, copy=False)).to(self.device).unfold(0, width, 1).movedim(-1, 1)


def window_rows(ends: np.ndarray, shortest: int) -> tuple[np.ndarray, np.ndarray]:
    """First row and episode of every window, (W,) each; `shortest`: steps it needs inside its episode."""
    starts = np.concatenate([[0], ends[:-1]])
    counts = np.maximum(ends - starts - shortest + 1, 0)
    return _ranges(starts, counts), np.repeat(np.arange(len(ends)), counts)


def padded_rows(ends: np.ndarray, *, before: int = 0, after: int = 0) -> np.ndarray:
    """Rows of all episodes, the first repeated `before` times in front, the last `after` times behind."""
    starts = np.concatenate([[0], ends[:-1]])
    counts = ends - starts + before + after
    return np.clip(_ranges(starts - before, counts), np.repeat(starts, counts), np.repeat(ends - 1, counts))


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`arange(count)` from each start, joined."""
    return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
