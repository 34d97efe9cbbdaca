"""An environment of any shapes, in which nothing happens."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

FACTORY = "noisepilot.tests.experiments.shaped:Shaped"


class Shaped(gym.Env):
    """States of given lengths, cameras of given shapes and an action of a given length."""

    metadata: ClassVar = {"render_fps": 10}

    def __init__(self, states: dict[str, int], action: int, cameras: dict[str, tuple[int, int, int]] | None = None):
        seen = {name: gym.spaces.Box(-1, 1, (dim,), np.float32) for name, dim in states.items()}
        pictures = {name: gym.spaces.Box(0, 255, tuple(shape), np.uint8) for name, shape in (cameras or {}).items()}
        self.observation_space = gym.spaces.Dict(seen | ({"images": gym.spaces.Dict(pictures)} if pictures else {}))
        self.action_space = gym.spaces.Box(-1, 1, (action,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def shaped(states: dict[str, int], action: int, **cameras: tuple[int, int, int]) -> list[str]:
    """Options that name such an environment."""
    keywords = {"states": states, "action": action, "cameras": cameras, "max_episode_steps": 8}
    return ["--env", FACTORY, "--env-kwargs", json.dumps(keywords)]
