"""Gymnasium's pendulums and arms, version 5, as declarations.

https://gymnasium.farama.org/environments/mujoco/
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from .task import STATE_ONLY, Frame, Read, never, normal_start, squares, state_obs, uniform_start


@dataclass(frozen=True, kw_only=True)
class InvertedPendulum:
    """A pole kept upright on a cart."""

    xml_file: str = "inverted_pendulum.xml"
    frame_skip: int = 2
    reset_noise_scale: float = 0.01
    reads: ClassVar = STATE_ONLY

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near upright."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Positions and velocities."""
        return state_obs(frame, 0)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """One for every step upright."""
        return 1.0 - self.terminated(after)

    def terminated(self, frame: Frame) -> np.ndarray:
        """Fallen, or no number any more."""
        return ~np.isfinite(self.obs(frame)).all(-1) | (np.abs(frame["qpos"][..., 1]) > 0.2)


@dataclass(frozen=True, kw_only=True)
class Reacher:
    """Two links whose fingertip goes to a target in the plane."""

    xml_file: str = "reacher.xml"
    frame_skip: int = 2
    reward_dist_weight: float = 1.0
    reward_control_weight: float = 1.0
    terminated = staticmethod(never)

    @property
    def reads(self) -> Mapping[str, Read]:
        """Places of fingertip and target."""
        return {"fingertip": ("xpos", "fingertip"), "target": ("xpos", "target")}

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near straight, the target anywhere in a disc."""
        qpos = rng.uniform(-0.1, 0.1, model.nq) + model.qpos0
        goal = rng.uniform(-0.2, 0.2, 2)
        while np.linalg.norm(goal) >= 0.2:
            goal = rng.uniform(-0.2, 0.2, 2)
        qvel = rng.uniform(-0.005, 0.005, model.nv)
        qpos[-2:], qvel[-2:] = goal, 0
        return qpos, qvel

    def obs(self, frame: Frame) -> np.ndarray:
        """Joint angles, target, joint speeds and the way from the target to the fingertip."""
        angles, goal = frame["qpos"][..., :2], frame["qpos"][..., 2:]
        way = (frame["fingertip"] - frame["target"])[..., :2]
        return np.concatenate((np.cos(angles), np.sin(angles), goal, frame["qvel"][..., :2], way), -1)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Nearness, less effort."""
        distance = np.linalg.norm(after["fingertip"] - after["target"], axis=-1)
        return -self.reward_dist_weight * distance - self.reward_control_weight * squares(action)


@dataclass(frozen=True, kw_only=True)
class Pusher:
    """An arm that pushes a cylinder to a goal on a table."""

    xml_file: str = "pusher_v5.xml"
    frame_skip: int = 5
    reward_near_weight: float = 0.5
    reward_dist_weight: float = 1.0
    reward_control_weight: float = 0.1
    terminated = staticmethod(never)

    @property
    def reads(self) -> Mapping[str, Read]:
        """Places of tip, object and goal."""
        return {name: ("xpos", name) for name in ("tips_arm", "object", "goal")}

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The arm at rest, the object somewhere not too near to the goal."""
        place = self._place(rng)
        while np.linalg.norm(place) <= 0.17:
            place = self._place(rng)
        qpos, qvel = model.qpos0.copy(), rng.uniform(-0.005, 0.005, model.nv)
        qpos[-4:-2], qpos[-2:], qvel[-4:] = place, 0, 0
        return qpos, qvel

    def obs(self, frame: Frame) -> np.ndarray:
        """Joint angles and speeds, places of tip, object and goal."""
        joints = frame["qpos"][..., :7], frame["qvel"][..., :7]
        return np.concatenate((*joints, frame["tips_arm"], frame["object"], frame["goal"]), -1)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """Nearness of tip to object and object to goal, less effort."""
        near = np.linalg.norm(after["object"] - after["tips_arm"], axis=-1)
        distance = np.linalg.norm(after["object"] - after["goal"], axis=-1)
        effort = self.reward_control_weight * squares(action)
        return -self.reward_dist_weight * distance - effort - self.reward_near_weight * near

    @staticmethod
    def _place(rng: np.random.Generator) -> np.ndarray:
        return np.array([rng.uniform(-0.3, 0), rng.uniform(-0.2, 0.2)])


@dataclass(frozen=True, kw_only=True)
class InvertedDoublePendulum:
    """Two poles kept upright on a cart."""

    xml_file: str = "inverted_double_pendulum.xml"
    frame_skip: int = 5
    healthy_reward: float = 10.0
    reset_noise_scale: float = 0.1

    @property
    def reads(self) -> Mapping[str, Read]:
        """Place of the tip and the forces that keep the cart on its rail."""
        return {"sites": ("site_xpos", None), "qfrc_constraint": ("qfrc_constraint", None)}

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Near upright."""
        return normal_start(model, rng, self.reset_noise_scale)

    def obs(self, frame: Frame) -> np.ndarray:
        """Cart, sines and cosines of the poles, limited velocities, limited force on the cart."""
        cart, angles = frame["qpos"][..., :1], frame["qpos"][..., 1:]
        velocity, force = np.clip(frame["qvel"], -10, 10), np.clip(frame["qfrc_constraint"][..., :1], -10, 10)
        return np.concatenate((cart, np.sin(angles), np.cos(angles), velocity, force), -1)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """A bonus while upright, less the tip's distance from the top and the poles' speeds."""
        x, y = after["sites"][..., 0, 0], after["sites"][..., 0, 2]
        v1, v2 = after["qvel"][..., 1], after["qvel"][..., 2]
        penalty = 0.01 * x**2 + (y - 2) ** 2 + 1e-3 * v1**2 + 5e-3 * v2**2
        return self.healthy_reward * ~self.terminated(after) - penalty

    def terminated(self, frame: Frame) -> np.ndarray:
        """The tip has fallen below a metre."""
        return frame["sites"][..., 0, 2] <= 1
