"""How LIBERO is observed: by this project's names, or as its published data sets are laid out.

| layout | numbers | pictures |
|---|---|---|
| `robosuite` | poses of objects and furniture, the hand | upright, `images.<camera>` |
| `hdf5` | the arm as in LIBERO's HDF5 files | upside down, `images.agentview`, `images.eye_in_hand` |
| `lerobot` | `state`: hand and fingers, as in its LeRobot data sets | mirrored, `images.image`, `images.image2` |

The data sets hold rows as OpenGL draws them, from below; LeRobot's turned by half a circle.
"""
# pyright: reportMissingImports=false
# (the suite may be absent)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

WRIST = "robot0_eye_in_hand"
LAYOUTS: Mapping[str, tuple[Mapping[str, str], tuple[int, int]]] = {
    "robosuite": ({}, (1, 1)),
    "hdf5": ({WRIST: "eye_in_hand"}, (-1, 1)),
    "lerobot": ({"agentview": "image", WRIST: "image2"}, (1, -1)),
}
"""what cameras are called, where not as in the scene, and the steps through an upright picture's rows and columns"""
PLACE, QUATERNION, ROTATION = ("x", "y", "z"), ("qx", "qy", "qz", "qw"), ("rx", "ry", "rz")
FINGERS = ("left_finger", "right_finger")


class Layout:
    """Observations of one simulator."""

    def __init__(self, name: str, simulator: Any) -> None:
        self.name, self.simulator = name, simulator
        self.cameras, self.turned = LAYOUTS[name]
        self.furniture = list(simulator.fixtures_dict)
        self.joints = [joint for fixture in simulator.fixtures_dict.values() for joint in fixture.joints]

    def observation(self, seen: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """LIBERO's observation and upright pictures by camera, as this layout has them."""
        named = {name: np.asarray(value, np.float64) for name, value in self._numbers(seen).items()}
        down, right = self.turned
        pictures = {self.cameras.get(name, name): picture[::down, ::right] for name, picture in drawn.items()}
        return {**named, "images": pictures} if pictures else named

    def names(self) -> dict[str, tuple[str, ...]]:
        """Observation -> names of its elements."""
        pose = (*PLACE, *QUATERNION)
        each = (*pose, *(f"to_eef_{part}" for part in pose))
        return {
            "object": tuple(f"{name}_{part}" for name in self.simulator.objects_dict for part in each),
            "fixture": (*(f"{name}_{part}" for name in self.furniture for part in pose), *self.joints),
            "robot0_eef_pos": PLACE,
            "robot0_eef_quat": QUATERNION,
            "robot0_gripper_qpos": FINGERS,
            "ee_pos": PLACE,
            "ee_ori": ROTATION,
            "gripper_states": FINGERS,
            "joint_states": tuple(f"joint{i}" for i in range(1, 8)),
            "state": (*PLACE, *ROTATION, *FINGERS),
        }

    def _numbers(self, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
        from robosuite.utils.transform_utils import quat2axisangle

        hand, fingers = seen["robot0_eef_pos"], seen["robot0_gripper_qpos"]
        turned = quat2axisangle(seen["robot0_eef_quat"].copy())  # which it would write into
        if self.name == "lerobot":
            return {"state": np.concatenate((hand, turned, fingers))}
        if self.name == "hdf5":
            arm = {"gripper_states": fingers, "joint_states": seen["robot0_joint_pos"]}
            return {"ee_pos": hand, "ee_ori": turned, **arm}
        own = {f"robot0_{part}": seen[f"robot0_{part}"] for part in ("eef_pos", "eef_quat", "gripper_qpos")}
        fixture = {"fixture": self._fixtures()} if self.furniture else {}
        return {"object": seen["object-state"], **fixture, **own}

    def _fixtures(self) -> np.ndarray:
        """Poses of the furniture (m, xyzw), then its joints: drawers (m), doors and knobs (rad)."""
        data, ids = self.simulator.sim.data, self.simulator.obj_body_id
        poses = [np.r_[data.body_xpos[ids[name]], np.roll(data.body_xquat[ids[name]], -1)] for name in self.furniture]
        return np.concatenate([*poses, [data.get_joint_qpos(joint) for joint in self.joints]])
