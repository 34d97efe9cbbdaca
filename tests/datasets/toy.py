"""A point on a plane behind the numpy protocol of environments, and actors for it."""

import numpy as np

from noisepilot.envs.core import Step
from noisepilot.spec import ArraySpec, EnvSpec, PolicySpec


class ToyCore:
    """The action is the velocity; success near the origin ends the episode."""

    def __init__(self, num_envs=3, max_steps=9):
        self.num_envs = num_envs
        self.spec = EnvSpec(
            "Toy-v0",
            {"state": ArraySpec((2,))},
            ArraySpec((2,), low=(-0.5, -0.5), high=(0.5, 0.5)),
            control_hz=10.0,
            max_steps=max_steps,
            signals=("success",),
        )
        self.state = np.zeros((num_envs, 2))
        self.steps = np.zeros(num_envs, int)
        self.ended = np.ones(num_envs, bool)
        self.seeds = []

    def reset(self, seeds, slots=None, state=None):
        slots = list(range(self.num_envs)) if slots is None else list(slots)
        self.seeds += list(seeds)
        self.state[slots] = [np.random.default_rng(seed).uniform(-2, 2, 2) for seed in seeds]
        self.steps[slots], self.ended[slots] = 0, False
        return {"state": self.state[slots].copy()}

    def step(self, action):
        parts = [self._single(action[:, i]) for i in range(action.shape[1])]
        obs, reward, terminated, truncated, valid = (np.stack(part, 1) for part in zip(*parts, strict=True))
        return Step({"state": obs}, reward, terminated, truncated, valid, {"success": terminated.astype(float)})

    def _single(self, action):
        assert (np.abs(action) <= 0.5).all()
        valid = ~self.ended
        self.state[valid] += action[valid]
        self.steps[valid] += 1
        terminated = valid & (np.linalg.norm(self.state, axis=1) < 0.3)
        truncated = valid & (self.steps >= self.spec.max_steps)
        self.ended |= terminated | truncated
        reward = np.where(valid, -np.linalg.norm(self.state, axis=1), 0.0)
        return self.state.copy(), reward, terminated, truncated, valid

    def get_state(self, slots=None):
        raise NotImplementedError

    def set_state(self, state, slots=None):
        raise NotImplementedError

    def render(self, slot=0, width=320, height=240):
        raise NotImplementedError

    def close(self):
        pass


class Homing:
    """Heads for the origin, two actions a call."""

    n_obs_steps = 2

    def act(self, obs, rng):
        assert obs["state"].shape[1:] == (2, 2)
        first = -obs["state"][:, -1]
        return np.stack([first, first + 0.5], 1)

    def check_env(self, spec):
        assert spec.id == "Toy-v0"


class NoiseActor:
    """A saved policy's face: chunks of H = 3 made of nothing but noise."""

    spec = PolicySpec({"state": ArraySpec((2,))}, ArraySpec((2,)), horizon=3, n_action_steps=2, n_obs_steps=2)
    noise_shape = (1, 3, 2)

    def act(self, obs, noise=None, generator=None):
        assert obs["state"].shape[1:] == (2, 2)
        assert noise is not None
        return noise[:, 0]
