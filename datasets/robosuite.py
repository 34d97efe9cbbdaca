"""robosuite's own demonstrations: HDF5 with `data/demo_i/{states, actions}` and attributes of `data`.

Zhu et al. 2020, https://arxiv.org/abs/2009.12293, `scripts/collect_human_demonstrations.py`. There are no
observations but the simulator's state, so that is what `observation.sim_state` is: time, positions, velocities.
The attributes say the environment: `env` and `env_info` (robosuite), or `env_args` (robomimic), both JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_dict
from ..errors import UserError
from ..spec import ArraySpec, Convention, arm_unit
from .hdf5 import array, attributes, child, in_order, is_hdf5, opened
from .source import Recorded

FAR = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)
"""robosuite's default output_max: m, rad"""
CONTROL_HZ = 20.0
"""robosuite's default control_freq, which demonstrations are collected at"""


def recognises(path: Path) -> bool:
    """HDF5 with a group `data` of demonstrations that have simulator states."""
    if not is_hdf5(path):
        return False
    with opened(path) as file:
        names = demonstrations(file)
        return bool(names) and child(file, f"data/{names[0]}/states") is not None


def open_source(path: Path) -> Robosuite:
    """Open a file.

    Raises:
        UserError: where h5py is absent, the file is damaged, or has no demonstrations.
    """
    with opened(path) as file:
        names = demonstrations(file)
        size = array(file["data"][names[0]], "actions").shape[-1]
        models = {str(file["data"][name].attrs.get("model_file", "")) for name in names}
        attrs = env_attrs(attributes(file["data"]), size) | {"source": path.name, "licence": ""}
        if len(models) == 1:
            attrs["model_file"] = models.pop()
    return Robosuite(path, attrs, tuple(names))


@dataclass(frozen=True, eq=False)
class Robosuite:
    """A file of states and actions."""

    path: Path
    attrs: Mapping[str, Any]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """One demonstration at a time; files of robosuite 1.0 add joint torques."""
        with opened(self.path) as file:
            for name in self.names[start:]:
                group = file["data"][name]
                data = {"observation.sim_state": array(group, "states"), "action": array(group, "actions")}
                if child(group, "joint_torques") is not None:
                    data["observation.joint_torques"] = array(group, "joint_torques")
                yield Recorded(data | {"next.truncated": last_only(len(data["action"]))})


def demonstrations(file: Any) -> list[str]:
    """Names of the groups inside `data`, in the order of their numbers."""
    import h5py

    data = child(file, "data")
    if not isinstance(data, h5py.Group):
        return []
    return in_order(name for name in map(str, data) if isinstance(child(data, name), h5py.Group))


def last_only(steps: int) -> np.ndarray:
    """(L,) flags of which the last one is set."""
    return np.arange(steps) == steps - 1


def env_attrs(attributes: Mapping[str, Any], action_dim: int) -> dict[str, Any]:
    """env, env_kwargs, fps and the action's spec from the attributes of `data`; all are kept under `file`.

    Raises:
        UserError: where `env_args` or `env_info` is no JSON object, or the rate no number.
    """
    args, info = _json(attributes, "env_args"), _json(attributes, "env_info")
    kwargs = _object(args.get("env_kwargs", info))
    spec = action_spec(_object(kwargs.get("controller_configs")), action_dim)
    env = args.get("env_name") or info.get("env_name") or attributes.get("env", "")
    file = {**attributes, **({"env_args": args} if args else {}), **({"env_info": info} if info else {})}
    fps = kwargs.get("control_freq") or CONTROL_HZ
    if not isinstance(fps, (int, float)) or not 0 < fps < float("inf"):
        raise UserError(f"the attributes name a control_freq of {fps!r}: it must be a positive number")
    return {"env": env, "env_kwargs": kwargs, "fps": float(fps), "specs": to_dict({"action": spec}), "file": file}


def action_spec(controller: Mapping[str, Any], dim: int) -> ArraySpec:
    """What robosuite's controller takes actions for: of one arm with a gripper, where its configuration says so.

    Deltas are scaled by the controller, from [-1, 1] to `output_max`; absolute poses are metres and axis-angle.
    """
    kind = controller.get("type")
    if kind is None and isinstance(parts := controller.get("body_parts"), dict):  # robosuite 1.5: per limb
        controller = _object(parts.get("right"))
        kind = controller.get("type")
    if kind not in ("OSC_POSE", "OSC_POSITION"):
        return ArraySpec((dim,))
    arm = 6 if kind == "OSC_POSE" else 3
    delta = controller.get("input_type", "delta") == "delta" and controller.get("control_delta", True)
    convention = Convention(
        mode="delta" if delta else "absolute",
        frame=controller.get("input_ref_frame") or "world",
        rotation="axis_angle" if kind == "OSC_POSE" else "",
        rotation_at=(3,) if kind == "OSC_POSE" else (),
        gripper="closes" if dim == arm + 1 else "",
        gripper_at=(arm,) if dim == arm + 1 else (),
    )
    ones = (1.0,) * dim
    if dim not in (arm, arm + 1):
        return ArraySpec((dim,))
    if not delta:
        return ArraySpec((dim,), unit=arm_unit(None, dim > arm), convention=convention)
    far = np.broadcast_to(controller.get("output_max", FAR[:arm]), arm)
    unit = arm_unit(far[::3].tolist(), dim > arm)
    return ArraySpec((dim,), low=tuple(-x for x in ones), high=ones, unit=unit, convention=convention)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        value = json.loads(attributes.get(name) or "{}")
    except (ValueError, TypeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"the attribute '{name}' is not a JSON object: the file is damaged or of another kind")
    return value
