"""What a MuJoCo task declares, and the few formulas that several tasks share.

A frame maps names to arrays (..., size): `qpos`, `qvel` and what the task `reads` from MjData beyond them.
Tasks are frozen dataclasses whose fields are Gymnasium's keywords: a keyword is honoured by being a field.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np

Frame = Mapping[str, np.ndarray]
Range = tuple[float, float]
Read = tuple[str, str | int | None]
"""attribute of MjData, and the body or site whose row is meant (None: the whole array)"""


STATE_ONLY: Mapping[str, Read] = {}


@runtime_checkable
class Task(Protocol):
    """One MuJoCo task; its functions are vectorised over leading dimensions."""

    @property
    def xml_file(self) -> str:
        """A model of Gymnasium's, or a path that starts with `.`, `/` or `~`."""
        ...

    @property
    def frame_skip(self) -> int:
        """Physics steps per action."""
        ...

    @property
    def reads(self) -> Mapping[str, Read]:
        """Arrays of a frame beyond `qpos` and `qvel`; empty where the state alone determines the task."""
        ...

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Draw a first `qpos` and `qvel`, and what else the engine's `start` takes."""
        ...

    def obs(self, frame: Frame) -> np.ndarray:
        """The observation, (..., O)."""
        ...

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """The reward (...) of `action` (..., A) that led from one frame to the next."""
        ...

    def terminated(self, frame: Frame) -> np.ndarray:
        """Whether a frame ends the episode, (...) bool."""
        ...


@runtime_checkable
class Signalling(Protocol):
    """A task that also says things beside the reward."""

    def signals(self, frame: Frame) -> Mapping[str, np.ndarray]:
        """What a frame says, name -> (...); the names are those of `EnvSpec.signals`."""
        ...


def uniform_start(model: mujoco.MjModel, rng: np.random.Generator, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The model's own posture at rest, with uniform noise on positions and velocities."""
    qpos = model.qpos0 + rng.uniform(-scale, scale, model.nq)
    return qpos, rng.uniform(-scale, scale, model.nv)


def normal_start(model: mujoco.MjModel, rng: np.random.Generator, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The model's own posture at rest, with uniform noise on positions and normal noise on velocities."""
    qpos = model.qpos0 + rng.uniform(-scale, scale, model.nq)
    return qpos, scale * rng.standard_normal(model.nv)


def squares(value: np.ndarray) -> np.ndarray:
    """Sum of squares over the last dimension."""
    return np.square(value).sum(-1)


def inside(value: np.ndarray, limits: Range) -> np.ndarray:
    """Whether values lie strictly between two limits."""
    low, high = limits
    return (low < value) & (value < high)


def state_obs(frame: Frame, hidden: int, limit: float | None = None) -> np.ndarray:
    """Positions without the first `hidden`, then velocities, cut off at +-`limit`."""
    qvel = frame["qvel"] if limit is None else np.clip(frame["qvel"], -limit, limit)
    return np.concatenate((frame["qpos"][..., hidden:], qvel), -1)


@runtime_checkable
class Forward(Protocol):
    """What a task that pays for speed along x has among its fields."""

    @property
    def frame_skip(self) -> int: ...  # noqa: D102
    @property
    def forward_reward_weight(self) -> float: ...  # noqa: D102
    @property
    def ctrl_cost_weight(self) -> float: ...  # noqa: D102


def forward_reward(
    task: Forward, x: tuple[np.ndarray, np.ndarray], action: np.ndarray, model: mujoco.MjModel
) -> np.ndarray:
    """Mean speed (m/s) over one action between two values of x, less the cost of effort; both weighted."""
    before, after = x
    speed = (after - before) / (model.opt.timestep * task.frame_skip)
    return task.forward_reward_weight * speed - task.ctrl_cost_weight * squares(action)


def root_x(before: Frame, after: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The first coordinate before and after."""
    return before["qpos"][..., 0], after["qpos"][..., 0]


def never(frame: Frame) -> np.ndarray:
    """No frame ends the episode."""
    return np.zeros(frame["qpos"].shape[:-1], bool)
