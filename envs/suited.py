"""What the adapters of suites share: keywords, names of observations, cameras, sparse rewards, scripted experts.

An adapter is a dataclass of keywords, made from `SuiteTask`, and a wrapper, made from `Suited`, that a worker puts
around the suite's own environment. `expert` of a wrapper is what `data collect --actor expert` plays.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ..errors import UserError, unknown
from .keywords import as_tuple
from .sparse import SPARSE, sparse_reward
from .suites import SUITES

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SuiteTask:
    """Keywords of every suite."""

    reward_type: str = "suite"
    """suite: as the suite pays; success, penalty: see `sparse.py`"""
    terminate_on_success: bool = False
    """end the episode where the task is done"""
    cameras: Names = ()
    """cameras of the scene, each an observation `images.<name>`"""
    image_height: int = 84
    image_width: int = 84
    rewards: ClassVar[Names] = ("suite", *SPARSE)

    def __post_init__(self) -> None:
        if self.reward_type not in self.rewards:
            raise unknown("reward_type", self.reward_type, self.rewards)


class Suited(gym.Wrapper):
    """A suite's environment with this project's names; observations are `look` and the cameras' pictures."""

    names: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """observation or `action` -> names of its elements"""
    units: Mapping[str, str] = MappingProxyType({})
    shapes: Mapping[str, int]
    """observation -> its length; set by the adapter before it calls this class"""

    def __init__(self, env: gym.Env, task: SuiteTask) -> None:
        super().__init__(env)
        self.task = task
        self._renderer: Any = None
        self._drawn: Any = None
        parts: dict[str, spaces.Space] = {
            name: spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in self.shapes.items()
        }
        picture = spaces.Box(0, 255, (task.image_height, task.image_width, 3), np.uint8)
        if task.cameras:
            parts["images"] = spaces.Dict(dict.fromkeys(task.cameras, picture))
        self.observation_space = spaces.Dict(parts)
        self._check_cameras()

    def look(self, obs: Any, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The suite's observation by our names."""
        raise NotImplementedError

    def scene(self) -> tuple[Any, Any]:
        """MuJoCo's model and data, for cameras."""
        return self.unwrapped.model, self.unwrapped.data

    def expert(self) -> np.ndarray:
        """What the suite's scripted expert does now, (A,)."""
        raise UserError("this suite has no scripted expert for the task")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self.observe(obs, info), info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.judged(self.observe(obs, info), float(reward), terminated, truncated, info)

    def judged(
        self, obs: Any, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step with the reward and the end that the keywords ask for."""
        success = bool(info["success"])
        if self.task.reward_type in SPARSE:
            reward = float(sparse_reward(self.task.reward_type, np.asarray(success)))
        return obs, reward, bool(terminated or (success and self.task.terminate_on_success)), truncated, info

    def observe(self, obs: Any, info: Mapping[str, Any]) -> dict[str, Any]:
        """Observations of all names; pictures as `images`, name -> (height, width, 3) uint8."""
        return {**self.look(obs, info), "images": {name: self._picture(name) for name in self.task.cameras}}

    def render(self) -> Any:
        """A picture of the scene from its first camera, or from where MuJoCo looks by itself."""
        return self._picture(next(iter(self.task.cameras), -1), 240, 320)

    def close(self) -> None:
        """Free the renderer and the simulator."""
        if self._renderer is not None:
            self._renderer.close()
        super().close()

    def _picture(self, camera: str | int, *size: int) -> np.ndarray:
        import mujoco

        model, data = self.scene()
        height, width = size or (self.task.image_height, self.task.image_width)
        if self._renderer is None or (self._renderer.height, self._renderer.width, self._model) != (
            height,
            width,
            model,
        ):
            if self._renderer is not None:
                self._renderer.close()
            self._model = model
            self._renderer = mujoco.Renderer(model, height, width)
        self._renderer.update_scene(data, camera)
        return self._renderer.render()

    def _check_cameras(self) -> None:
        if self.task.cameras:
            model, _ = self.scene()
            known = [model.camera(i).name for i in range(model.ncam)]
            for name in self.task.cameras:
                if name not in known:
                    raise unknown("camera", name, known)


def given(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords as a worker gets them, JSON's lists made tuples again."""
    return {name: as_tuple(value) for name, value in keywords.items()}


def require(suite: str, env: str) -> None:
    """Refuse an environment whose suite is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    if find_spec(SUITES[suite].module) is None:
        raise UserError(f"{env} needs {suite}: noisepilot envs install {suite}")
