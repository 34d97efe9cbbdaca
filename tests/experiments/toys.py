"""A walk on a line whose answer is known, and an actor that looks at its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from noisepilot.envs.core import Step
from noisepilot.spec import ArraySpec, EnvSpec, PolicySpec

SPEC = EnvSpec(
    id="Line",
    obs={"state": ArraySpec((1,))},
    action=ArraySpec((1,), names=("push",)),
    control_hz=10.0,
    max_steps=50,
    signals=("success",),
    reference=(-10.0, 0.0),
)


class Line:
    """N points on a line; the seed draws the start; x >= 1 is the goal and the end; reward is -0.1 a step."""

    spec = SPEC

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.x = np.zeros(num_envs)
        self.count = np.zeros(num_envs, dtype=int)
        self.over = np.ones(num_envs, dtype=bool)

    def reset(self, seeds, slots=None):
        slots = list(range(self.num_envs)) if slots is None else list(slots)
        assert len(slots) == len(seeds)
        for slot, seed in zip(slots, seeds, strict=True):
            self.x[slot] = np.random.default_rng(seed).uniform(-1, 0)
            self.count[slot], self.over[slot] = 0, False
        return {"state": torch.from_numpy(self.x[slots][:, None].copy())}

    def step(self, action):
        n = action.shape[1]
        out = {k: np.zeros((self.num_envs, n), bool) for k in ("terminated", "truncated", "valid")}
        obs, reward, success = (
            np.zeros((self.num_envs, n, 1)),
            np.zeros((self.num_envs, n)),
            np.zeros((self.num_envs, n)),
        )
        for i in range(n):
            live = ~self.over
            self.x[live] += action[live, i, 0].double().numpy()
            self.count[live] += 1
            out["valid"][:, i] = live
            out["terminated"][:, i] = live & (self.x >= 1)
            out["truncated"][:, i] = live & (self.count >= 50) & ~out["terminated"][:, i]
            success[:, i] = out["terminated"][:, i]
            reward[live, i] = -0.1
            obs[:, i, 0] = self.x
            self.over |= out["terminated"][:, i] | out["truncated"][:, i]
        step = Step(obs={"state": obs}, reward=reward, signals={"success": success}, **out)
        return step.map(torch.from_numpy)


class Pusher:
    """Pushes by the sum of its noise plus `drift`; elementwise, so that batching cannot round differently."""

    def __init__(self, drift: float = 0.05, horizon: int = 4, n_action_steps: int = 3, n_obs_steps: int = 2) -> None:
        self.drift = drift
        self.spec = PolicySpec(
            obs=SPEC.obs,
            action=SPEC.action,
            horizon=horizon,
            n_action_steps=n_action_steps,
            n_obs_steps=n_obs_steps,
            control_hz=10.0,
        )
        self.noise_shape = (3, horizon, 1)

    def act(self, obs, noise: Any = None, generator=None):
        assert obs["state"].shape[1:] == (self.spec.n_obs_steps, 1)
        pull = 0.01 * obs["state"][:, 0]  # the oldest observation, so that history matters
        return self.drift + 0.1 * noise.sum(1) - pull[:, None]
