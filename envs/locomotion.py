"""Gymnasium's walking and swimming tasks on a plane, version 5, as declarations.

https://gymnasium.farama.org/environments/mujoco/
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from .task import (
    STATE_ONLY,
    Frame,
    Range,
    forward_reward,
    inside,
    never,
    normal_start,
    root_x,
    state_obs,
    uniform_start,
)

INF = float("inf")


@dataclass(frozen=True, kw_only=True)
class Hopper:
    """One leg that hops forward without falling."""

    xml_file: str = "hopper.xml"
    frame_skip: int = 4
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-3
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_state_range: Range = (-100.0, 100.0)
    healthy_z_range: Range = (0.7, INF)
    healthy_angle_range: Range = (-0.2, 0.2)
    reset_noise_scale: float = 5e-3
    exclude_current_positions_from_observation: bool = True
    reads: ClassVar = STATE_ONLY

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near standing."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions and limited velocities."""
        return state_obs(frame, self.exclude_current_positions_from_observation, 10.0)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Speed and health, less effort."""
        moved = forward_reward(self, root_x(before, after), action, model)
        return moved + self.healthy_reward * self.healthy(after)

    def healthy(self, frame: Frame) -> np.ndarray:
        """Upright, above the ground and nothing out of range."""
        rest = np.concatenate((frame["qpos"][..., 2:], frame["qvel"]), -1)
        upright = inside(frame["qpos"][..., 2], self.healthy_angle_range)
        above = inside(frame["qpos"][..., 1], self.healthy_z_range)
        return inside(rest, self.healthy_state_range).all(-1) & above & upright

    def terminated(self, frame: Frame) -> np.ndarray:
        """Unhealthy."""
        return ~self.healthy(frame) & self.terminate_when_unhealthy


@dataclass(frozen=True, kw_only=True)
class Walker2d:
    """Two legs that walk forward without falling."""

    xml_file: str = "walker2d_v5.xml"
    frame_skip: int = 4
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-3
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.8, 2.0)
    healthy_angle_range: Range = (-1.0, 1.0)
    reset_noise_scale: float = 5e-3
    exclude_current_positions_from_observation: bool = True
    reads: ClassVar = STATE_ONLY

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near standing."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions and limited velocities."""
        return state_obs(frame, self.exclude_current_positions_from_observation, 10.0)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Speed and health, less effort."""
        moved = forward_reward(self, root_x(before, after), action, model)
        return moved + self.healthy_reward * self.healthy(after)

    def healthy(self, frame: Frame) -> np.ndarray:
        """Upright and above the ground."""
        upright = inside(frame["qpos"][..., 2], self.healthy_angle_range)
        return inside(frame["qpos"][..., 1], self.healthy_z_range) & upright

    def terminated(self, frame: Frame) -> np.ndarray:
        """Unhealthy."""
        return ~self.healthy(frame) & self.terminate_when_unhealthy


@dataclass(frozen=True, kw_only=True)
class HalfCheetah:
    """Two legs that run forward and may fall."""

    xml_file: str = "half_cheetah.xml"
    frame_skip: int = 5
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True
    reads: ClassVar = STATE_ONLY
    terminated = staticmethod(never)

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near standing."""
        return normal_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions and velocities."""
        return state_obs(frame, self.exclude_current_positions_from_observation)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Speed, less effort."""
        return forward_reward(self, root_x(before, after), action, model)


@dataclass(frozen=True, kw_only=True)
class Swimmer:
    """Three links that swim forward."""

    xml_file: str = "swimmer.xml"
    frame_skip: int = 4
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-4
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True
    reads: ClassVar = STATE_ONLY
    terminated = staticmethod(never)

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near straight."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions and velocities."""
        return state_obs(frame, 2 * self.exclude_current_positions_from_observation)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Speed, less effort."""
        return forward_reward(self, root_x(before, after), action, model)
