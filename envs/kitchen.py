"""Franka Kitchen: an arm opens, turns and moves what a kitchen has, by Gymnasium-Robotics.

Gupta et al. 2019, https://arxiv.org/abs/1910.11956.

Success is that all tasks asked for are done; the signal `completed` counts those that are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from ..errors import UserError, unknown
from .remote import RemoteCore, make_remote
from .suited import Names, Suited, SuiteTask, given, require

CONTROL_HZ = 12.5
"""forty physics steps of 2 ms per action"""
TASKS = ("microwave", "kettle", "bottom burner", "top burner", "light switch", "slide cabinet", "hinge cabinet")
ROBOT = (*(f"joint_{i}" for i in range(1, 8)), "finger_right", "finger_left")
KNOBS = ("bottom_right", "bottom_left", "top_right", "top_left")
OBJECTS = (
    *(part for i, place in enumerate(KNOBS, 1) for part in (f"knob_{i}", f"{place}_burner")),
    *("light_switch", "light", "slide_cabinet", "left_hinge_cabinet", "right_hinge_cabinet", "microwave"),
)
KETTLE = ("x", "y", "z", "qw", "qx", "qy", "qz")
SPEED = ("vx", "vy", "vz", "wx", "wy", "wz")


@dataclass(frozen=True, kw_only=True)
class Kitchen(SuiteTask):
    """Keywords of the kitchen."""

    tasks_to_complete: Names = TASKS
    """what is to be done, in any order; each pays 1 once"""
    terminate_on_success: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks_to_complete:
            raise UserError(f"tasks_to_complete is empty: name some of {', '.join(TASKS)}")
        for name in self.tasks_to_complete:
            if name not in TASKS:
                raise unknown("task of the kitchen", name, TASKS)


class Cook(Suited):
    """One kitchen."""

    signals = ("completed",)
    names: ClassVar = {
        "state": (
            *ROBOT,
            *(f"{joint}_speed" for joint in ROBOT),
            *OBJECTS,
            *(f"kettle_{part}" for part in KETTLE),
            *(f"{part}_speed" for part in OBJECTS),
            *(f"kettle_{part}" for part in SPEED),
        ),
        "action": tuple(f"{joint}_speed" for joint in ROBOT),
    }
    units: ClassVar = {"state": "rad, m, s", "action": "2 rad/s"}
    shapes: ClassVar = {"state": 59}

    def look(self, obs: Any, info: Any) -> dict[str, np.ndarray]:
        """Positions and velocities; the goal of a task is always the same."""
        return {"state": obs["observation"]}

    def judged(
        self, obs: Any, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """With success and the count of what is done."""
        done = len(info["episode_task_completions"])
        info = {**info, "completed": float(done), "success": done == len(self.wanted)}
        return super().judged(obs, reward, terminated, truncated, info)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = super().reset(seed=seed, options=options)
        return obs, info | {"success": False}

    @property
    def wanted(self) -> Names:
        """Tasks to do."""
        assert isinstance(self.task, Kitchen)
        return tuple(self.task.tasks_to_complete)


def open_kitchen(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

    task = Kitchen(**given(keywords))
    # Ended by `Suited`, after the reward is judged.
    return Cook(KitchenEnv(list(task.tasks_to_complete), terminate_on_tasks_completed=False), task)


def make_kitchen(task: Kitchen, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("robotics", facts["id"])
    known = {"control_hz": CONTROL_HZ, **facts}
    return make_remote(f"{__name__}:{open_kitchen.__name__}", num_envs, asdict(task), known)
