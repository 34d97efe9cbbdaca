"""The environment whose action is the noise of a frozen policy (DSRL, Wagenmaker et al. 2025, arXiv:2506.15799).

Any learner of continuous actions steers the policy by acting here. One action is the initial noise of one chunk; its
Step holds what the n environment steps of that chunk did, so time limits, rates and counts are those of the
environment. Shapes: N slots, n executed actions, H horizon, A action dim, D noise dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..envs.core import State, Step
from ..envs.vector import VectorEnv
from ..errors import UserError
from ..policies.actor import Base
from ..policies.noise_space import NoiseSpace
from ..policies.policy import ACTION
from ..policies.steered import steerable
from ..shapes import Float
from ..spec import ArraySpec
from .frozen_base import FrozenBase


class NoiseEnv(FrozenBase):
    """A `VectorEnv` of actions w in [-bound, bound]^D that executes base(obs, noise = w).

    Args:
        env: N slots.
        base: made for `env`; run with initial noise alone.
        space: what w spans and how far it reaches; w beyond the bound counts as the bound.
        steps: denoising steps of the base; None: its own.

    Raises:
        UserError: for a base made for another environment, or one that takes no noise.
    """

    def __init__(self, env: VectorEnv, base: Base, space: NoiseSpace, steps: int | None = None) -> None:
        base = steerable(base, steps)
        _, self.horizon, dim = base.noise_shape
        size = space.rows(self.horizon) * dim
        limit = (space.bound,) * size
        action = ArraySpec((size,), low=tuple(-b for b in limit), high=limit, unit="standard deviations")
        super().__init__(env, base, replace(env.spec, action=action))
        self.space = space
        self._executed: Float[Tensor, "N n A"] | None = None

    @property
    def last_chunk(self) -> Float[Tensor, "N n A"] | None:
        """What the latest action made the base do, normalised; None before the first."""
        return None if self._executed is None else self.base.normalizer.normalize(ACTION, self._executed)

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, Tensor]:
        """Start new episodes in `slots` (all if None), one seed each; returns name -> (len(slots), ...)."""
        return self._begin(seeds, slots, state)

    def step(self, action: Tensor) -> Step:
        """Execute the chunks that the base makes of this noise, (N, 1, D).

        Raises:
            UserError: for another shape.
        """
        if tuple(action.shape) != (self.num_envs, 1, self.spec.action.dim):
            wanted = (self.num_envs, 1, self.spec.action.dim)
            raise UserError(f"the noise of {self.spec.id} has shape {wanted}, got {tuple(action.shape)}")
        w = action[:, 0].to(self.base.device, self.base.dtype).clamp(-self.space.bound, self.space.bound)
        with torch.no_grad():
            chunk = self.base.act(self.history.obs, self.space.expand(w, self.horizon))
        chunk = chunk[:, : self.base.spec.n_action_steps]
        self._executed = chunk
        step = self.env.step(chunk)
        self.history.push_chunk(step)
        return step
