"""Tasks that only a camera tells: the action shall be 1 where the picture is bright, and -1 where it is dark."""

from __future__ import annotations

from shlex import split
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from noisepilot.datasets.episodes import Episodes

SIZE = (40, 48)
FACTORY = "noisepilot.tests.experiments.seeing:Bright"
SMALL = split("--policy.network.hidden 16 16 16 --policy.path.levels 4 --policy.sampler.steps 4")
FIT = split("--bc.grad-steps 4 --bc.batch 8 --log-every 4 --checkpoint-every 4 --policy.horizon 2")
TRAIN = [*SMALL, *FIT, "--policy.n-action-steps", "2"]
VIT = split("--policy.encoder vit --policy.encoder.width 8 --policy.encoder.heads 2 --policy.encoder.features 8")
RESNET = split("--policy.encoder resnet --policy.encoder.width 16 --policy.encoder.keypoints 4")


class Bright(gym.Env):
    """Two cameras, of which one tells what to do, and a state that says nothing."""

    metadata: ClassVar = {"render_fps": 10}

    def __init__(self, height: int = SIZE[0], width: int = SIZE[1], cameras: tuple[str, ...] = ("front", "wrist")):
        self.size, self.cameras = (height, width, 3), cameras
        pictures = {name: gym.spaces.Box(0, 255, self.size, np.uint8) for name in cameras}
        state = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"images": gym.spaces.Dict(pictures), "state": state})
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = -float(abs(action[0] - (1 if self.bright else -1)))
        return self._look(), reward, False, False, {}

    def _look(self) -> dict[str, Any]:
        self.bright = bool(self.np_random.random() < 0.5)
        pictures = {name: picture(self.np_random, self.size, self.bright) for name in self.cameras}
        return {"images": pictures, "state": self.np_random.uniform(-1, 1, 2).astype(np.float32)}


def picture(rng: np.random.Generator, size: tuple[int, ...], bright: bool) -> np.ndarray:
    """Noise, bright or dark."""
    return (rng.integers(0, 100, size) + 150 * bright).astype(np.uint8)


def write_demos(path: Any, change: Any = None, steps: int = 60, size: tuple[int, int] = SIZE) -> str:
    """Episodes of six steps with rewards; `change` edits the arrays."""
    rng = np.random.default_rng(0)
    bright = rng.random(steps) < 0.5
    data = {
        "observation.images.front": np.stack([picture(rng, (*size, 3), b) for b in bright]),
        "observation.images.wrist": np.stack([picture(rng, (*size, 3), b) for b in bright]),
        "observation.state": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "action": np.where(bright, 1, -1)[:, None].astype(np.float32),
        "next.reward": np.zeros(steps, np.float32),
        "next.terminated": np.arange(1, steps + 1) % 6 == 0,
    }
    if change:
        change(data)
    Episodes(data, np.arange(6, steps + 1, 6), {"fps": 10.0}).write(path)
    return str(path)
