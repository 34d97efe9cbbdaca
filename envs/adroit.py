"""Adroit: a hand of 24 joints on an arm of 4 undoes a latch and opens a door.

Rajeswaran et al. 2018, https://arxiv.org/abs/1709.10087. Equal to Gymnasium-Robotics' `AdroitHandDoor-v1`,
whose model it reads.

The door stands elsewhere in every episode. That place is part of the model, not of the state, so each thread
has a model of its own and puts the slot's door into it before it runs the slot's chunk.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from ..errors import UserError, unknown
from ..spec import ArraySpec, EnvSpec
from .core import State
from .mujoco_core import MujocoCore, driven_joints
from .physics import load_model
from .sparse import SPARSE, sparse_reward
from .task import Frame, Read, squares
from .threaded import DataEngine

OPEN = 1.35
"""angle of the hinge (rad) from which the door counts as open"""
HINGE = 28
"""where the observation shows the hinge"""
MOVED = "frame"
"""body that carries the door"""
REWARDS = ("dense", "d4rl", "sparse", *SPARSE)


@dataclass(frozen=True, kw_only=True)
class Door:
    """Keywords of the door."""

    reward_type: str = "dense"
    """d4rl: distance of palm and handle costs, opening pays (D4RL, and the human demonstrations); dense: the
    same but distance pays, a slip of sign in Gymnasium-Robotics 1.2.1 to 1.4.2; sparse: 10 or -0.1; success,
    penalty: see `sparse.py`"""
    terminate_on_success: bool = False
    """end the episode where the door is open"""

    def __post_init__(self) -> None:
        if self.reward_type not in REWARDS:
            raise unknown("reward_type of the door", self.reward_type, REWARDS)

    @property
    def frame_skip(self) -> int:
        """Physics steps per action."""
        return 5

    @property
    def reads(self) -> Mapping[str, Read]:
        """Places of palm and handle."""
        return {"palm": ("site_xpos", "S_grasp"), "handle": ("site_xpos", "S_handle")}

    @property
    def xml_file(self) -> str:
        """The model, which comes with Gymnasium-Robotics; found without importing it."""
        package = find_spec("gymnasium_robotics")
        if package is None:
            raise UserError("the Adroit hand needs its model: pip install 'noisepilot[robotics]'")
        return str(Path(str(package.origin)).parent / "envs" / "assets" / "adroit_hand" / "adroit_door.xml")

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The hand at zero, and where the door stands (m)."""
        place = [rng.uniform(-0.3, -0.2), rng.uniform(0.25, 0.35), rng.uniform(0.252, 0.35)]
        return model.qpos0, np.zeros(model.nv), np.array(place)

    def obs(self, frame: Frame) -> np.ndarray:
        """Hand joints, latch and hinge (rad), places of palm and handle and their difference (m), open or not."""
        qpos, palm, handle = frame["qpos"], frame["palm"], frame["handle"]
        hinge = qpos[..., -2:-1]
        is_open = np.where(hinge > 1.0, 1.0, -1.0)
        return np.concatenate([qpos[..., 1:-2], qpos[..., -1:], hinge, palm, handle, palm - handle, is_open], -1)

    def reward(self, before: Frame, after: Frame, action: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
        """As `reward_type` says."""
        hinge = after["qpos"][..., -2]
        if self.reward_type not in ("dense", "d4rl"):
            return self.success_reward(hinge >= OPEN)
        distance = np.sqrt(squares(after["palm"] - after["handle"]))
        approach = distance if self.reward_type == "dense" else -distance
        bonus = 2.0 * (hinge > 0.2) + 8.0 * (hinge > 1.0) + 10.0 * (hinge > OPEN)
        return 0.1 * approach - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * squares(after["qvel"]) + bonus

    def success_reward(self, success: np.ndarray) -> np.ndarray:
        """Rewards that follow from success alone."""
        if self.reward_type == "sparse":
            return np.where(success, 10.0, -0.1)
        return sparse_reward(self.reward_type, success)

    def terminated(self, frame: Frame) -> np.ndarray:
        """Where the door is open, if that shall end the episode."""
        return (frame["qpos"][..., -2] >= OPEN) & self.terminate_on_success

    def signals(self, frame: Frame) -> Mapping[str, np.ndarray]:
        """Success: the door is open."""
        return {"success": (frame["qpos"][..., -2] >= OPEN).astype(float)}

    def relabel(self, obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outcomes that a recorded observation shows (see `Relabels`); dense rewards stay as recorded."""
        success = obs["state"][..., HINGE] >= OPEN
        found = {"state": obs["state"], "success": success.astype(np.float32)}
        found["terminated"] = success & self.terminate_on_success
        if self.reward_type not in ("dense", "d4rl"):
            found["reward"] = self.success_reward(success).astype(np.float32)
        return found


class PlacedEngine(DataEngine):
    """One body of the model has a place (N, 3) in every slot of its own; actions are shares of the motors' range."""

    def __init__(
        self, model: mujoco.MjModel, frame_skip: int, num_envs: int, reads: Mapping[str, Read], body: str
    ) -> None:
        super().__init__(model, frame_skip, num_envs, reads)
        self.models = [copy.copy(model) for _ in self.models]
        self.body = model.body(body).id
        self.place = np.tile(model.body_pos[self.body], (num_envs, 1))
        self.middle = model.actuator_ctrlrange.mean(1)
        self.half = (model.actuator_ctrlrange[:, 1] - model.actuator_ctrlrange[:, 0]) / 2

    def start(self, slot: int, qpos: np.ndarray, qvel: np.ndarray, place: np.ndarray | None = None) -> None:
        """Put the body to its place, and the rest as ever."""
        if place is not None:
            self.place[slot] = place
        self.model.body_pos[self.body] = self.place[slot]
        super().start(slot, qpos, qvel)

    def advance(self, slots: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
        """Run actions (M, n, A) in [-1, 1]."""
        return super().advance(slots, self.middle + np.clip(action, -1.0, 1.0) * self.half)

    def physics(self, slot: int) -> tuple[np.ndarray, int]:
        """A slot's state; the model that is drawn gets the slot's place."""
        self.model.body_pos[self.body] = self.place[slot]
        return super().physics(slot)

    def get_state(self, slots: np.ndarray) -> State:
        """Physics, frame and place."""
        return super().get_state(slots) | {"place": self.place[slots]}

    def set_state(self, slots: np.ndarray, state: State) -> None:
        """Continue from arrays of `get_state`."""
        super().set_state(slots, state)
        self.place[slots] = state["place"]

    def _run(self, model: mujoco.MjModel, row: int, slot: int, actions: np.ndarray) -> None:
        model.body_pos[self.body] = self.place[slot]
        super()._run(model, row, slot, actions)


def make_door(task: Door, num_envs: int, **facts: Any) -> MujocoCore:
    """Build N doors; `facts` are fields of EnvSpec that the table of environments knows."""
    model = load_model(facts["id"], task.xml_file)
    soften(model)
    engine = PlacedEngine(model, task.frame_skip, num_envs, task.reads, MOVED)
    ones = (1.0,) * model.nu
    spec = EnvSpec(
        obs={"state": ArraySpec(task.obs(engine.frame(np.arange(1))).shape[1:])},
        action=ArraySpec((model.nu,), names=driven_joints(model), low=tuple(-x for x in ones), high=ones),
        control_hz=1 / (model.opt.timestep * task.frame_skip),
        signals=("success",),
        **facts,
    )
    return MujocoCore(spec, task, model, engine, num_envs)


def soften(model: mujoco.MjModel) -> None:
    """The gains of wrist and fingers that every Adroit task sets: position servos of stiffness 10 and 1."""
    for first, last, gain in (("A_WRJ1", "A_WRJ0", 10.0), ("A_FFJ3", "A_THJ0", 1.0)):
        motors = slice(model.actuator(first).id, model.actuator(last).id + 1)
        model.actuator_gainprm[motors, :3] = gain, 0, 0
        model.actuator_biasprm[motors, :3] = 0, -gain, 0
