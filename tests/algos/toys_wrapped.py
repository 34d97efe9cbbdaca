"""A line whose answer is known, as an environment of this package, and bases for it."""

from __future__ import annotations

import numpy as np
import torch

from noisepilot.envs.core import Step
from noisepilot.envs.episodes import Episodes, Outcome, check_seeds
from noisepilot.envs.vector import TensorEnv
from noisepilot.experiments.evaluate import evaluate
from noisepilot.policies import Policy, load_policy, save_policy
from noisepilot.spec import ArraySpec, EnvSpec

from ..policies.toys import tiny


class LineCore:
    """x <- x + 0.1 a in A dimensions; episodes last 3 to `max_steps` steps, as the seed says; reward a[0]."""

    def __init__(self, num_envs: int, dim: int = 2, max_steps: int = 7) -> None:
        box = ((-1.0,) * dim, (1.0,) * dim)
        self.spec = EnvSpec(
            "Line", {"state": ArraySpec((3,))}, ArraySpec((dim,), (), *box), 10.0, max_steps, ("success",)
        )
        self.num_envs = num_envs
        self.episodes = Episodes(self.spec, num_envs)
        self.x = np.zeros((num_envs, 3))
        self.life = np.full(num_envs, max_steps)

    def reset(self, seeds, slots=None, state=None):
        chosen = self.episodes.select(slots)
        for slot, seed in zip(chosen, check_seeds(seeds, chosen), strict=True):
            rng = np.random.default_rng(seed)
            self.x[slot], self.life[slot] = rng.normal(size=3), rng.integers(3, self.spec.max_steps + 2)
        if state is not None:
            self.x[chosen], self.life[chosen] = state["x"], state["life"]
        self.episodes.begin(chosen, {"state": self.x[chosen]})
        return {"state": self.x[chosen].copy()}

    def step(self, action) -> Step:
        slots, action = self.episodes.admit(action)
        trace = self.x[slots, None] + 0.1 * np.cumsum(np.pad(action, ((0, 0), (0, 0), (0, 3 - action.shape[2]))), 1)
        age = self.episodes.elapsed[slots, None] + np.arange(1, action.shape[1] + 1)
        terminated = age == self.life[slots, None]
        step, last = self.episodes.record(
            slots, Outcome({"state": trace}, action[..., 0], terminated, {"success": terminated.astype(float)})
        )
        self.x[slots] = trace[np.arange(len(slots)), last]
        return step

    def get_state(self, slots=None):
        chosen = self.episodes.select(slots)
        return {"x": self.x[chosen], "life": self.life[chosen]} | self.episodes.get_state(chosen)

    def set_state(self, state, slots=None):
        chosen = self.episodes.select(slots)
        self.x[chosen], self.life[chosen] = state["x"], state["life"]
        self.episodes.set_state(chosen, state, {"state": self.x[chosen]})
        return {"state": self.x[chosen].copy()}

    def render(self, slot=0, width=320, height=240):
        return np.full((height, width, 3), slot, np.uint8)

    def close(self):
        self.closed = True


def line(num_envs: int = 3, **kwargs) -> TensorEnv:
    return TensorEnv(LineCore(num_envs, **kwargs))


def base(kind: str = "ddim", **changes) -> Policy:
    """A random policy for the line: horizon 3, 2 executed actions, 2 observations."""
    return tiny(kind, dtype=torch.float32, **changes)


def comes_back(actor, path) -> None:
    """What is loaded without flags plays the same episodes on the line."""
    save_policy(actor, path)
    again = load_policy(path, "cpu")
    ours, theirs = (evaluate(a, line(), range(6)).returns for a in (actor, again))
    assert (ours == theirs).all()
    assert again.hash() == actor.hash()
