"""ALOHA in simulation: two arms with fourteen joints, by gym-aloha. Zhao et al. 2023, https://arxiv.org/abs/2304.13705.

The state is where the joints are; `environment_state` is where the objects are, and stands in for cameras: with
a camera it is left out. gym-aloha draws three pictures of 640 x 480 per step whoever looks; here only what
`cameras` names is drawn.
"""
# pyright: reportMissingImports=false
# (the suite may be absent)

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from .remote import RemoteCore, make_remote
from .suited import Suited, SuiteTask, given, require

CONTROL_HZ = 50.0
ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
JOINTS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ARM)
OBJECTS = {"insertion": ("peg", "socket"), "transfer_cube": ("cube",)}
"""task -> what lies on the table"""
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")


@dataclass(frozen=True, kw_only=True)
class Aloha(SuiteTask):
    """Keywords of ALOHA."""

    task: str
    """insertion or transfer_cube; the id says it"""
    image_height: int = 480
    image_width: int = 640
    terminate_on_success: bool = True


class Arms(Suited):
    """One table."""

    units: ClassVar = {"state": "rad, 1 open", "environment_state": "m", "action": "rad, 1 open"}

    def __init__(self, env: gym.Env, task: Aloha) -> None:
        objects = tuple(f"{name}_{part}" for name in OBJECTS[task.task] for part in POSE)
        self.names = {"state": JOINTS, "environment_state": objects, "action": JOINTS}
        self.shapes = {"state": 14} if task.cameras else {"state": 14, "environment_state": len(objects)}
        self.inner: Any = env.unwrapped
        self.inner._env.task.get_observation = self.without_pictures
        self.inner._format_raw_obs = dict
        super().__init__(env, task)
        # gym-aloha says -1 to 1, but joints go where their actuators do.
        arm = self.scene()[0].actuator_ctrlrange
        low, high = np.zeros(14, np.float32), np.ones(14, np.float32)
        for ours, theirs in ((0, 0), (7, 8)):
            low[ours : ours + 6], high[ours : ours + 6] = arm[theirs : theirs + 6].T
        self.action_space = gym.spaces.Box(low, high)

    def without_pictures(self, physics: Any) -> dict[str, np.ndarray]:
        """What gym-aloha observes, less its pictures."""
        task = self.inner._env.task
        return {"qpos": task.get_qpos(physics), "env_state": task.get_env_state(physics)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = super().reset(seed=seed)
        self.seen = (obs, 0.0, False, False, {"success": False})
        return obs, {**info, "success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action; where the simulation diverges, the episode ends without success."""
        from dm_control.rl.control import PhysicsError

        try:
            self.seen = super().step(action)
        except PhysicsError:
            return self.seen[0], 0.0, True, False, {"success": False}
        return self.seen

    def look(self, obs: Any, info: Any) -> dict[str, np.ndarray]:
        """Joints, and objects where no camera shows them."""
        found = {"state": obs["qpos"], "environment_state": obs["env_state"]}
        return {name: np.asarray(found[name], np.float64) for name in self.shapes}

    def judged(
        self, obs: Any, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Success ends the episode only if it is asked to."""
        return super().judged(obs, reward, False, truncated, {**info, "success": info["is_success"]})

    def scene(self) -> tuple[Any, Any]:
        """MuJoCo's own objects inside dm_control's."""
        physics = self.inner._env.physics
        return physics.model.ptr, physics.data.ptr


def open_aloha(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    from gym_aloha.env import AlohaEnv

    task = Aloha(**given(keywords))
    return Arms(AlohaEnv(task.task, obs_type="pixels_agent_pos"), task)


def make_aloha(task: Aloha, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("aloha", facts["id"])
    known = {"control_hz": CONTROL_HZ, **facts}
    return make_remote(f"{__name__}:{open_aloha.__name__}", num_envs, asdict(task), known)
