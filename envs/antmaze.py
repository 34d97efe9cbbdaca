"""AntMaze: a four-legged robot walks through a maze, by Gymnasium-Robotics.

Fu et al. 2020, https://arxiv.org/abs/2004.07219.

The state is D4RL's: positions with x and y, then velocities; contact forces, which Gymnasium-Robotics adds, are
left out. Cells are four metres wide; the goal is reached within 0.45 m.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from ..errors import UserError, unknown
from .maze import Cell, Map, Maze
from .remote import RemoteCore, make_remote
from .sparse import SPARSE
from .suited import Names, Suited, SuiteTask, given, require

CONTROL_HZ = 20.0
"""five physics steps of 10 ms per action"""
JOINTS = tuple(f"{joint}_{leg}" for leg in range(1, 5) for joint in ("hip", "ankle"))
BODY = ("x", "y", "z", "qw", "qx", "qy", "qz")
SPEED = ("vx", "vy", "vz", "wx", "wy", "wz")


@dataclass(frozen=True, kw_only=True)
class AntMaze(SuiteTask):
    """Keywords of AntMaze."""

    maze_map: Map
    reward_type: str = "sparse"
    """sparse: 1 at the goal; dense: exp(-distance); success, penalty: see `sparse.py`"""
    continuing_task: bool = True
    """False: the episode terminates at the goal"""
    goal_cell: Cell | None = None
    """row and column of the goal's cell; None: drawn"""
    reset_cell: Cell | None = None
    """row and column of the start's cell; None: drawn"""
    rewards: ClassVar[Names] = ("sparse", "dense", *SPARSE)

    def __post_init__(self) -> None:
        if self.reward_type not in self.rewards:
            raise unknown("reward_type of AntMaze", self.reward_type, self.rewards)
        maze = Maze(self.maze_map)
        for name in ("goal_cell", "reset_cell"):
            cell = getattr(self, name)
            if cell is not None and not maze.is_free(tuple(cell)):
                raise UserError(f"{name} {tuple(cell)} is a wall or outside the maze of shape {maze.shape}")


class Legs(Suited):
    """One maze."""

    names: ClassVar = {
        "state": (*BODY, *JOINTS, *SPEED, *(f"{joint}_speed" for joint in JOINTS)),
        "goal": ("x", "y"),
        "action": ("hip_4", "ankle_4", "hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3"),
    }
    units: ClassVar = {"state": "m, rad, s", "goal": "m", "action": "150 Nm"}
    shapes: ClassVar = {"state": 29, "goal": 2}

    def __init__(self, env: gym.Env, task: AntMaze) -> None:
        super().__init__(env, task)
        cells = {"goal_cell": task.goal_cell, "reset_cell": task.reset_cell}
        self.options = {name: np.array(cell) for name, cell in cells.items() if cell is not None}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        return super().reset(seed=seed, options=self.options)

    def look(self, obs: Any, info: Any) -> dict[str, np.ndarray]:
        """Positions and velocities, and where to go."""
        return {"state": np.concatenate([obs["achieved_goal"], obs["observation"]]), "goal": obs["desired_goal"]}


def open_antmaze(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    from gymnasium_robotics.envs.maze.ant_maze_v5 import AntMazeEnv

    task = AntMaze(**given(keywords))
    env = AntMazeEnv(
        maze_map=[list(row) for row in task.maze_map],
        reward_type=task.reward_type if task.reward_type == "dense" else "sparse",
        continuing_task=task.continuing_task,
        include_cfrc_ext_in_observation=False,
    )
    return Legs(env, task)


def make_antmaze(task: AntMaze, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("robotics", facts["id"])
    known = {"control_hz": CONTROL_HZ, **facts}
    return make_remote(f"{__name__}:{open_antmaze.__name__}", num_envs, asdict(task), known)
