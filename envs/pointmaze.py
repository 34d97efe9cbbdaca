"""PointMaze: a ball pushed through a maze, equal to Gymnasium-Robotics' version 3, which it does not need.

Gymnasium-Robotics limits the speed at the beginning of every action, so a chunk cannot be one native call:
physics would have to be cut in between. It is one call per action for all slots together instead, and on the
calling thread: a physics step takes 3 microseconds here, so waking other threads costs more than they save.

N slots, M running, n actions per chunk.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from ..errors import UserError
from ..spec import ArraySpec, EnvSpec
from .core import State, Step
from .episodes import Episodes, Outcome, check_seeds
from .maze import Cell, Map, Maze, maze_model
from .physics import PHYSICS, log_warnings
from .render import Camera
from .seeds import packed, unpacked

GOAL_RADIUS = 0.45
MAX_SPEED = 5.0


@dataclass(frozen=True, kw_only=True)
class MazeTask:
    """Keywords of PointMaze."""

    maze_map: Map
    reward_type: str = "sparse"
    """sparse: 1 within 0.45 m of the goal; dense: exp(-distance)"""
    continuing_task: bool = True
    """False: the episode terminates at the goal"""
    reset_target: bool = False
    """draw a new goal when one is reached (continuing tasks only)"""
    position_noise_range: float = 0.25
    """start and goal lie up to this far from their cell's centre, metres along x and y"""
    goal_cell: Cell | None = None
    """row and column of the goal's cell; None: drawn"""
    reset_cell: Cell | None = None
    """row and column of the start's cell; None: drawn"""

    def __post_init__(self) -> None:
        if self.reward_type not in ("sparse", "dense"):
            raise UserError(f"reward_type is 'sparse' or 'dense', not '{self.reward_type}'")
        for name in ("goal_cell", "reset_cell"):
            cell = getattr(self, name)
            if cell is not None and not self.maze.is_free(cell):
                raise UserError(f"{name} {tuple(cell)} is a wall or outside the maze of shape {self.maze.shape}")
        goals = self.maze.goals if self.goal_cell is None else self.maze.centers(np.array([self.goal_cell]))
        starts = self.maze.starts
        if self.reset_cell is None and len(starts) == 1 and (goals == starts).all(1).any():
            raise UserError("the only cell to start from may hold the goal: mark another, or give reset_cell")

    @property
    def maze(self) -> Maze:
        """The geometry."""
        return Maze(self.maze_map)

    def goal(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a goal, (2,)."""
        if self.goal_cell is None:
            return self.near(drawn(self.maze.goals, rng), rng)
        return self.near(self.maze.centers(np.array(self.goal_cell)), rng)

    def start(self, goal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a start that is not in the goal's place, (2,)."""
        if self.reset_cell is not None:
            return self.near(self.maze.centers(np.array(self.reset_cell)), rng)
        start = drawn(self.maze.starts, rng)
        while np.linalg.norm(start - goal) <= 0.5:
            start = drawn(self.maze.starts, rng)
        return self.near(start, rng)

    def near(self, xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Shift a position by noise."""
        return xy + rng.uniform(-self.position_noise_range, self.position_noise_range, 2)

    def reward(self, distance: np.ndarray) -> np.ndarray:
        """Reward of a distance to the goal."""
        return np.exp(-distance) if self.reward_type == "dense" else (distance <= GOAL_RADIUS).astype(float)


def drawn(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of several positions."""
    return places[rng.integers(0, len(places))]


class PointMaze:
    """N mazes; what continues an episode is `physics` (N, 5), `goal` (N, 2) and a generator per slot."""

    def __init__(self, spec: EnvSpec, task: MazeTask, model: mujoco.MjModel, num_envs: int) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.task = task
        self.model = model
        self.episodes = Episodes(spec, num_envs)
        self.physics = np.zeros((num_envs, mujoco.mj_stateSize(model, PHYSICS)))
        self.goal = np.zeros((num_envs, 2))
        self.rngs = [np.random.default_rng(0)] * num_envs
        self.camera = Camera(model, distance=12.5 if task.maze.shape[0] > 8 else 8.8)
        self._rollout = Rollout(nthread=0)
        self._scratch = [mujoco.MjData(model)]
        self._models = [model] * num_envs
        self._sensors = np.zeros((num_envs, 1, 0))

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Start episodes as Gymnasium-Robotics does for the same seeds; `state` replaces the drawn start."""
        chosen = self.episodes.select(slots)
        for slot, seed in zip(chosen, check_seeds(seeds, chosen), strict=True):
            self.rngs[slot] = rng = np.random.default_rng(seed)
            self.goal[slot] = goal = self.task.goal(rng)
            self.physics[slot] = 0, *self.task.start(goal, rng), 0, 0
        if state is not None:
            self._restore(chosen, state)
        obs = self._obs(self.physics[chosen], self.goal[chosen])
        self.episodes.begin(chosen, obs)
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Execute a chunk of actions, (N, n, A)."""
        slots, action = self.episodes.admit(action)
        trace = np.empty((*action.shape[:2], self.physics.shape[1]))  # (M, n, Q)
        goals = np.empty(action.shape)  # (M, n, 2)
        physics = self.physics[slots]
        for k in range(action.shape[1]):
            trace[:, k] = physics = self._advance(physics, action[:, k])
            goals[:, k] = self.goal[slots]
            if self.task.reset_target and self.task.continuing_task:
                self._renew_goals(slots, physics[:, 1:3])
        step, last = self.episodes.record(slots, self._outcome(trace, goals))
        self.physics[slots] = trace[np.arange(len(slots)), last]
        return step

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Physics, goal, generator and clock of slots."""
        chosen = self.episodes.select(slots)
        own = {
            "physics": self.physics[chosen],
            "goal": self.goal[chosen],
            "rng": np.array([packed(self.rngs[slot]) for slot in chosen], np.uint64).reshape(-1, 6),
        }
        return own | self.episodes.get_state(chosen)

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Continue from `get_state`, bit-equal."""
        chosen = self.episodes.select(slots)
        self._restore(chosen, state)
        obs = self._obs(self.physics[chosen], self.goal[chosen])
        self.episodes.set_state(chosen, state, obs)
        return obs

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot from above, (height, width, 3) uint8."""
        self.model.site("goal").pos[:2] = self.goal[slot]
        return self.camera.picture(self.physics[slot], PHYSICS, width, height)

    def close(self) -> None:
        """Free the renderer."""
        self.camera.close()

    def _restore(self, slots: np.ndarray, state: State) -> None:
        self.physics[slots] = state["physics"]
        self.goal[slots] = state["goal"]
        for slot, row in zip(slots, state["rng"], strict=True):
            self.rngs[slot] = unpacked(row)

    def _advance(self, physics: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One action (M, 2) from states (M, Q), the solver cold each time: nothing but the state matters."""
        count = len(physics)
        after = np.empty((count, 1, physics.shape[1]))
        if count:
            start = physics.copy()
            np.clip(start[:, 3:], -MAX_SPEED, MAX_SPEED, out=start[:, 3:])
            self._rollout.rollout(
                self._models[:count],
                self._scratch,
                start,
                np.ascontiguousarray(action[:, None]),
                skip_checks=True,
                nstep=1,
                state=after,
                sensordata=self._sensors[:count],
            )
        return after[:, 0]

    def _outcome(self, trace: np.ndarray, goals: np.ndarray) -> Outcome:
        distance = np.linalg.norm(trace[..., 1:3] - goals, axis=-1)
        reached = distance <= GOAL_RADIUS
        return Outcome(
            obs=self._obs(trace, goals),
            reward=self.task.reward(distance),
            terminated=reached & (not self.task.continuing_task),
            signals={"success": reached.astype(float)},
        )

    def _obs(self, physics: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
        return {"state": physics[..., 1:].copy(), "goal": goal}

    def _renew_goals(self, slots: np.ndarray, xy: np.ndarray) -> None:
        """Draw goals anew, away from the point, where the present one is reached."""
        if len(self.task.maze.goals) < 2:
            return
        for row in np.flatnonzero(np.linalg.norm(xy - self.goal[slots], axis=-1) <= GOAL_RADIUS):
            slot = slots[row]
            while np.linalg.norm(xy[row] - self.goal[slot]) <= GOAL_RADIUS:
                self.goal[slot] = self.task.near(drawn(self.task.maze.goals, self.rngs[slot]), self.rngs[slot])


def make_pointmaze(task: MazeTask, num_envs: int, **facts: Any) -> PointMaze:
    """Build N mazes; `facts` are fields of EnvSpec that the table of environments knows."""
    log_warnings()
    model = mujoco.MjModel.from_xml_string(maze_model(task.maze))
    spec = EnvSpec(
        obs={
            "state": ArraySpec((4,), names=("x", "y", "vx", "vy"), unit="m, m/s"),
            "goal": ArraySpec((2,), names=("x", "y"), unit="m"),
        },
        action=ArraySpec((2,), names=("fx", "fy"), low=(-1.0, -1.0), high=(1.0, 1.0), unit="100 N"),
        control_hz=1 / model.opt.timestep,
        signals=("success",),
        **facts,
    )
    return PointMaze(spec, task, model, num_envs)
