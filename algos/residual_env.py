"""The environment whose action corrects a frozen policy at every step (ResiP, Ankile et al. 2024, arXiv:2407.16677).

Every slot plays chunks of the base, each on its own clock: a chunk ends when n actions are executed or its episode
does. Shapes: N slots, S some of them, n executed actions per chunk, K denoising steps, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..envs.core import State, Step
from ..envs.seeds import noise_generator, packed, unpacked
from ..envs.vector import VectorEnv
from ..errors import UserError
from ..policies.actor import Base
from ..policies.playback import Playback
from ..policies.policy import ACTION
from ..policies.residual import BASE_ACTION, plan, shift
from ..shapes import Bool, Float
from ..spec import ArraySpec
from .frozen_base import FrozenBase


class ResidualEnv(FrozenBase):
    """A `VectorEnv` that executes base_action + scale * u; observations gain `base_action`, normalised.

    `base_action` belongs to the newest observation: it is what the base does next if u = 0. The base's noise in an
    episode is drawn as evaluation draws it, from the episode's seed, so u = 0 gives the episode of the base alone.

    Args:
        env: N slots.
        base: made for `env`.
        scale: of u, in normalised actions.
        bounded: u is kept within [-1, 1]; otherwise it has no limits (ResiP).

    Raises:
        UserError: for a base made for another environment, or a scale that is not positive.
    """

    def __init__(self, env: VectorEnv, base: Base, scale: float, *, bounded: bool = True) -> None:
        if not scale > 0:
            raise UserError(f"the scale of the residual must be positive, got {scale:g}: 0.03 to 0.3 is usual")
        if BASE_ACTION in env.spec.obs:
            raise UserError(f"{env.spec.id} has an observation '{BASE_ACTION}' already: it cannot be corrected twice")
        dim = env.spec.action.dim
        low, high = ((-1.0,) * dim, (1.0,) * dim) if bounded else (None, None)
        names = env.spec.action.names
        obs = {**env.spec.obs, BASE_ACTION: ArraySpec((dim,), names=names)}
        action = ArraySpec((dim,), names=names, low=low, high=high)
        super().__init__(env, base, replace(env.spec, obs=obs, action=action))
        self.scale, self.bounded = scale, bounded
        self.playback = Playback(self.num_envs, base.spec.n_action_steps)
        self.rngs: list[np.random.Generator] = [noise_generator(0)] * self.num_envs

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, Tensor]:
        """Start new episodes in `slots` (all if None), one seed each; returns name -> (len(slots), ...)."""
        obs = self._begin(seeds, slots, state)
        chosen = self._select(slots)
        for slot, seed in zip(chosen, seeds, strict=True):
            self.rngs[slot] = noise_generator(seed)
        self.playback.restart(chosen)
        rows = torch.zeros(self.num_envs, dtype=torch.bool)
        rows[chosen] = True
        self._plan(rows)
        return {**obs, BASE_ACTION: self._base_action()[chosen]}

    def step(self, action: Tensor) -> Step:
        """Execute one corrected action per slot; the corrections have shape (N, 1, A).

        Raises:
            UserError: for another shape.
        """
        if tuple(action.shape) != (self.num_envs, 1, self.spec.action.dim):
            wanted = (self.num_envs, 1, self.spec.action.dim)
            raise UserError(f"corrections of {self.spec.id} have shape {wanted}, got {tuple(action.shape)}")
        planned = self.playback.action()
        u = action[:, 0].to(planned)
        u = u.clamp(-1, 1) if self.bounded else u
        step = self.env.step((planned + shift(self.base.normalizer, self.scale * u))[:, None])
        self.history.push_chunk(step)
        moved = step.valid[:, 0].cpu()
        self.playback.advance(moved)
        # A truncated episode's last observation is worth what would have followed: its base action is needed too.
        self._plan(moved & self.playback.due)
        return replace(step, obs={**step.obs, BASE_ACTION: self._base_action()[:, None]})

    def _plan(self, rows: Bool[Tensor, " N"]) -> None:
        noise = np.zeros((self.num_envs, *self.base.noise_shape), np.float32)
        for slot in rows.nonzero().flatten().tolist():
            self.rngs[slot].standard_normal(out=noise[slot], dtype=np.float32)
        with torch.no_grad():
            plan(self.base, self.playback, rows, self.history.obs, torch.from_numpy(noise).to(self.spec.device))

    def _base_action(self) -> Float[Tensor, "N A"]:
        return self.base.normalizer.normalize(ACTION, self.playback.action())

    def _own_state(self, slots: list[int]) -> State:
        rngs = np.array([packed(self.rngs[slot]) for slot in slots], np.uint64).reshape(-1, 6)
        chunk = self.playback.chunk[slots].cpu().numpy()
        return super()._own_state(slots) | {
            "rng": rngs,
            "chunk": chunk,
            "position": self.playback.position[slots].numpy(),
        }

    def _set_own_state(self, own: State, obs: dict[str, Tensor], slots: list[int]) -> dict[str, Tensor]:
        super()._set_own_state(own, obs, slots)
        for slot, words in zip(slots, own["rng"], strict=True):
            self.rngs[slot] = unpacked(words)
        index = torch.tensor(slots)
        self.playback.start(index, torch.from_numpy(own["chunk"].copy()).to(self.base.device))
        self.playback.position[index] = torch.from_numpy(own["position"].copy())
        return {**obs, BASE_ACTION: self._base_action()[slots]}
