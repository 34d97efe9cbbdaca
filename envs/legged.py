"""Gymnasium's walking tasks that read contact forces, version 5, as declarations.

https://gymnasium.farama.org/environments/mujoco/
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from .task import Frame, Range, Read, forward_reward, inside, normal_start, squares, uniform_start


def flat(frame: Frame, name: str, first: int) -> np.ndarray:
    """Rows of a frame's array from `first` on, (..., rows, size) -> (..., rows * size)."""
    rows = frame[name][..., first:, :]
    *lead, count, size = rows.shape
    return rows.reshape(*lead, count * size)


@dataclass(frozen=True, kw_only=True)
class Ant:
    """Four legs that walk along x."""

    xml_file: str = "ant.xml"
    frame_skip: int = 5
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    main_body: int | str = 1
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.2, 1.0)
    contact_force_range: Range = (-1.0, 1.0)
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True
    include_cfrc_ext_in_observation: bool = True

    @property
    def reads(self) -> Mapping[str, Read]:
        """Place of the body and forces on all bodies."""
        return {"place": ("xpos", self.main_body), "cfrc_ext": ("cfrc_ext", None)}

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near standing."""
        return normal_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions, velocities and limited contact forces."""
        parts = [frame["qpos"][..., 2 * self.exclude_current_positions_from_observation :], frame["qvel"]]
        if self.include_cfrc_ext_in_observation:
            parts.append(np.clip(flat(frame, "cfrc_ext", 1), *self.contact_force_range))
        return np.concatenate(parts, -1)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Speed and health, less effort and contact."""
        moved = forward_reward(self, (before["place"][..., 0], after["place"][..., 0]), action, model)
        contact = squares(np.clip(flat(after, "cfrc_ext", 0), *self.contact_force_range))
        return moved + self.healthy_reward * self.healthy(after) - self.contact_cost_weight * contact

    def healthy(self, frame: Frame) -> np.ndarray:
        """At a proper height, and all numbers finite."""
        (low, high), z = self.healthy_z_range, frame["qpos"][..., 2]
        finite = np.isfinite(frame["qpos"]).all(-1) & np.isfinite(frame["qvel"]).all(-1)
        return finite & (low <= z) & (z <= high)

    def terminated(self, frame: Frame) -> np.ndarray:
        """Unhealthy."""
        return ~self.healthy(frame) & self.terminate_when_unhealthy


@dataclass(frozen=True, kw_only=True)
class Humanoid:
    """Two legs and arms that walk along x."""

    xml_file: str = "humanoid.xml"
    frame_skip: int = 5
    forward_reward_weight: float = 1.25
    ctrl_cost_weight: float = 0.1
    contact_cost_weight: float = 5e-7
    contact_cost_range: Range = (-np.inf, 10.0)
    healthy_reward: float = 5.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (1.0, 2.0)
    reset_noise_scale: float = 1e-2
    exclude_current_positions_from_observation: bool = True
    include_cinert_in_observation: bool = True
    include_cvel_in_observation: bool = True
    include_qfrc_actuator_in_observation: bool = True
    include_cfrc_ext_in_observation: bool = True

    @property
    def reads(self) -> Mapping[str, Read]:
        """Places of all masses, and what the observation includes."""
        shown = {
            "cinert": self.include_cinert_in_observation,
            "cvel": self.include_cvel_in_observation,
            "qfrc_actuator": self.include_qfrc_actuator_in_observation,
            "cfrc_ext": True,  # the reward needs it
        }
        return {"xipos": ("xipos", None)} | {name: (name, None) for name, wanted in shown.items() if wanted}

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near standing."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions, velocities, and inertias, velocities, motor and contact forces of the bodies."""
        parts = [frame["qpos"][..., 2 * self.exclude_current_positions_from_observation :], frame["qvel"]]
        if self.include_cinert_in_observation:
            parts.append(flat(frame, "cinert", 1))
        if self.include_cvel_in_observation:
            parts.append(flat(frame, "cvel", 1))
        if self.include_qfrc_actuator_in_observation:
            parts.append(frame["qfrc_actuator"][..., 6:])
        if self.include_cfrc_ext_in_observation:
            parts.append(flat(frame, "cfrc_ext", 1))
        return np.concatenate(parts, -1)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Speed of the centre of mass and health, less effort and contact."""
        share = model.body_mass / model.body_mass.sum()
        x = before["xipos"][..., 0] @ share, after["xipos"][..., 0] @ share
        contact = np.clip(self.contact_cost_weight * squares(flat(after, "cfrc_ext", 0)), *self.contact_cost_range)
        # The cost of effort is of the motors' command, which Gymnasium leaves unlimited too.
        return forward_reward(self, x, action, model) + self.healthy_reward * self.healthy(after) - contact

    def healthy(self, frame: Frame) -> np.ndarray:
        """At a proper height."""
        return inside(frame["qpos"][..., 2], self.healthy_z_range)

    def terminated(self, frame: Frame) -> np.ndarray:
        """Unhealthy."""
        return ~self.healthy(frame) & self.terminate_when_unhealthy
