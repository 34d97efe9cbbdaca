"""The last T observations of every slot: what a policy with `n_obs_steps` > 1 looks at.

Used by evaluation, the training loops and the environments that hold a frozen policy. N slots, n executed actions per
chunk, T = `n_obs_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .core import Step


class History:
    """Observations name -> (N, T, ...), the newest last. Floats become float32, images keep their bytes."""

    def __init__(self, n_obs_steps: int) -> None:
        self.n_obs_steps = n_obs_steps
        self.obs: dict[str, Tensor] = {}

    def reset(self, obs: Mapping[str, Tensor], slots: Sequence[int] | None = None) -> None:
        """Fill with first observations (S, ...) of new episodes, repeated T times; None: all slots."""
        first = {name: _single(value)[:, None].repeat_interleave(self.n_obs_steps, 1) for name, value in obs.items()}
        self.put(first, slots)

    def get(self, slots: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What `slots` (all if None) remember, name -> (S, T, ...)."""
        index = slice(None) if slots is None else list(slots)
        return {name: value[index] for name, value in self.obs.items()}

    def put(self, obs: Mapping[str, Tensor], slots: Sequence[int] | None = None) -> None:
        """Replace what `slots` (all if None) remember, name -> (S, T, ...)."""
        if slots is None:
            self.obs = dict(obs)
            return
        index = torch.as_tensor(list(slots))
        # Out of place: a rollout may still hold the tensors of the last decision.
        self.obs = {name: value.index_copy(0, index.to(value.device), obs[name]) for name, value in self.obs.items()}

    def push_chunk(self, step: Step) -> None:
        """Append the observations of the executed actions; entries that are not `valid` do not count."""
        newest = step.valid.sum(1, keepdim=True) + torch.arange(self.n_obs_steps, device=step.valid.device)
        slot = torch.arange(newest.shape[0], device=newest.device)[:, None]
        self.obs = {
            name: torch.cat([value, _single(step.obs[name])], 1)[slot, newest] for name, value in self.obs.items()
        }


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
