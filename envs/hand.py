"""The Adroit hand with hammer, pen and ball, by Gymnasium-Robotics; the door is native, see `adroit.py`.

Rajeswaran et al. 2018, https://arxiv.org/abs/1709.10087.
"""
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from ..errors import unknown
from .remote import RemoteCore, make_remote
from .sparse import SPARSE
from .suited import Names, Suited, SuiteTask, given, require

CONTROL_HZ = 100.0
"""five physics steps of 2 ms per action"""
DROPPED = 0.075
"""height (m) below which the pen counts as dropped"""
XYZ = ("x", "y", "z")
TURN = ("vx", "vy", "vz", "wx", "wy", "wz")
BEHIND = {
    "Hammer": (("nail", *TURN), {"palm": XYZ, "hammer": XYZ, "hammer_angle": XYZ, "goal": XYZ, "nail": ("force",)}),
    "Pen": ((), {"pen": (*XYZ, *TURN), "pen_axis": XYZ, "goal_axis": XYZ, "to_goal": XYZ, "axis_to_goal": XYZ}),
    "Relocate": ((), {"ball_to_palm": XYZ, "goal_to_palm": XYZ, "goal_to_ball": XYZ}),
}
"""task -> what its state holds behind the joints"""


@dataclass(frozen=True, kw_only=True)
class Hand(SuiteTask):
    """Keywords of the hand."""

    task: str
    """Hammer, Pen or Relocate; the id says it"""
    reward_type: str = "dense"
    """dense: Gymnasium-Robotics'; d4rl: as D4RL recorded: distance of palm and object costs (dense pays it, a slip
    of sign in Gymnasium-Robotics 1.2.1 to 1.4.2), a dropped pen ends the episode; sparse: 10 or -0.1; success,
    penalty: see `sparse.py`"""
    rewards: ClassVar[Names] = ("dense", "d4rl", "sparse", *SPARSE)

    def __post_init__(self) -> None:
        if self.reward_type not in self.rewards:
            raise unknown("reward_type of the hand", self.reward_type, self.rewards)


class Grasp(Suited):
    """One task."""

    units: ClassVar = {"state": "rad, m, s", "action": "half the range of a joint"}

    def __init__(self, env: gym.Env, task: Hand) -> None:
        model = env.unwrapped.model
        joints = tuple(model.actuator(i).name.removeprefix("A_") for i in range(model.nu))
        first, parts = BEHIND[task.task]
        state = (*joints, *first, *(f"{name}_{part}" for name, each in parts.items() for part in each))
        self.names = {"state": state, "action": joints}
        self.shapes = {"state": len(state)}
        super().__init__(env, task)
        self.kind = task.task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = super().reset(seed=seed)
        return obs, {**info, "success": False}

    def look(self, obs: np.ndarray, info: Any) -> dict[str, np.ndarray]:
        """The state."""
        return {"state": obs}

    def judged(
        self, obs: Any, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """With D4RL's reward where it is asked for."""
        if self.task.reward_type == "d4rl":
            inner = self.unwrapped
            body = inner.data.xpos[inner.obj_body_id]
            if self.kind == "Pen":
                terminated = bool(terminated or body[2] < DROPPED)
            else:  # minus the distance instead of plus
                reward -= 0.2 * float(np.linalg.norm(inner.data.site_xpos[inner.S_grasp_site_id] - body))
        return super().judged(obs, reward, terminated, truncated, info)


def open_hand(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    task = Hand(**given(keywords))
    module = import_module(f"gymnasium_robotics.envs.adroit_hand.adroit_{task.task.lower()}")
    make = getattr(module, f"AdroitHand{task.task}Env")
    return Grasp(make(reward_type="sparse" if task.reward_type == "sparse" else "dense"), task)


def make_hand(task: Hand, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("robotics", facts["id"])
    known = {"control_hz": CONTROL_HZ, **facts}
    return make_remote(f"{__name__}:{open_hand.__name__}", num_envs, asdict(task), known)
