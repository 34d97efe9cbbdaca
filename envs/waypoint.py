"""A scripted controller that walks a PointMaze to its goal, as the demonstrations of D4RL's maze2d were made.

Shortest way through the cells, then proportional-derivative control to the centre of the next cell, or in the
goal's cell to the goal (Fu et al. 2020, https://arxiv.org/abs/2004.07219). It keeps nothing between calls:
the next cell follows from the present one, so a demonstration can be continued from anywhere.

N slots, T history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import UserError
from ..spec import EnvSpec
from .maze import Maze
from .registry import TABLE


@dataclass(frozen=True, kw_only=True)
class WaypointController:
    """Acts in one maze, one action per call; `experiments.controllers.Controller` describes its methods."""

    maze: Maze
    gain: float = 10.0
    """force per metre to the waypoint, in units of the motors' limit"""
    damping: float = 1.0
    """force against each metre per second"""
    noise: float = 0.0
    """standard deviation of what is added to each action; D4RL takes 0.5"""
    n_obs_steps: int = 1

    @cached_property
    def way(self) -> np.ndarray:
        """Goal's row and column, own row and column -> the next cell, (R, C, R, C, 2)."""
        rows, columns = self.maze.shape
        return np.array([[self.maze.next_cells((i, j)) for j in range(columns)] for i in range(rows)])

    def waypoint(self, xy: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Where to go next from `xy` (N, 2) in order to reach `goal` (N, 2)."""
        here, there = self.maze.cell_of(xy), self.maze.cell_of(goal)
        following = self.way[there[:, 0], there[:, 1], here[:, 0], here[:, 1]]
        arrived = (here == there).all(-1, keepdims=True)
        return np.where(arrived, goal, self.maze.centers(following))

    def act(self, obs: Mapping[str, np.ndarray], rng: Sequence[np.random.Generator]) -> np.ndarray:
        """Observations name -> (N, T, ...), the newest counts, and one generator per slot -> (N, 1, 2)."""
        state, goal = np.asarray(obs["state"])[:, -1], np.asarray(obs["goal"])[:, -1]
        force = self.gain * (self.waypoint(state[:, :2], goal) - state[:, :2]) - self.damping * state[:, 2:]
        noise = np.stack([generator.normal(0, self.noise, 2) for generator in rng])
        return np.clip(force + noise, -1, 1)[:, None]

    def check_env(self, spec: EnvSpec) -> None:
        """Refuse anything but PointMaze with this very maze."""
        if maze_of(spec) != self.maze:
            raise UserError(f"{spec.id} is another maze than this controller's")


def maze_of(spec: EnvSpec) -> Maze:
    """The maze of a PointMaze environment."""
    entry = TABLE.get(spec.id)
    if entry is None or entry.task != "pointmaze:MazeTask":
        raise UserError(f"{spec.id} is no PointMaze: the waypoint controller cannot act in it")
    return entry.build_task(spec.id, spec.kwargs)[0].maze
