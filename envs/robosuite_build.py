"""A robosuite simulator from one description, on robosuite 1.4 and 1.5: which keywords differ, and how.

| | 1.4 | 1.5 |
|---|---|---|
| controllers | one per robot | one per body part of a robot, in the base's frame unless told |
| physics | two passes per simulation step | one pass (`lite_physics`), unless told |
| randomness | numpy's global generator | a generator of the environment's own |

Everything is told so that both behave as 1.4, from which robomimic's data sets come.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (the suite may be absent, and MuJoCo's compiled module has no stubs)

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from ..errors import UserError
from ..spec import arm_unit

ROBOSUITE = 1
"""robomimic's number for environments of robosuite, `type` in `env_args`"""
OURS = ("has_renderer", "has_offscreen_renderer", "ignore_done", "use_object_obs", "use_camera_obs", "horizon")
OURS += ("camera_names", "camera_heights", "camera_widths", "camera_depths", "camera_segmentations")
OURS += ("render_gpu_device_id", "reward_shaping", "renderer")
"""keywords in `env_args` that the adapter decides"""

OSC = {
    "input_max": 1,
    "input_min": -1,
    "kp": 150,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_ratio_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}
"""robosuite's operational-space controllers, as in robomimic's data sets"""
STEP = {"OSC_POSE": (0.05, 0.05, 0.05, 0.5, 0.5, 0.5), "OSC_POSITION": (0.05, 0.05, 0.05)}
"""controller -> how far an action of 1 goes, in metres and radians"""


def osc(kind: str, delta: bool) -> dict[str, Any]:
    """Settings of an operational-space controller, as robosuite 1.4 takes them."""
    far = list(STEP[kind])
    return {"type": kind, **OSC, "output_max": far, "output_min": [-x for x in far], "control_delta": delta}


def read_env_args(text: str) -> dict[str, Any]:
    """Robomimic's `env_args`: JSON, a file of it, or a data set (`.hdf5`) that holds it.

    Raises:
        UserError: for anything else, or for an environment that is not robosuite's.
    """
    content = text if text.lstrip().startswith("{") else _stored(Path(text).expanduser())
    try:
        found = json.loads(content)
    except ValueError as error:
        raise UserError(f"env_args is not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("env_name"), str):
        raise UserError("env_args lacks env_name: give what robomimic stores with a data set")
    if found.get("type", ROBOSUITE) != ROBOSUITE:
        raise UserError(f"env_args describes {found['env_name']}, which is not an environment of robosuite")
    return found


def _stored(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"env_args: there is no file {path}")
    if path.suffix not in (".hdf5", ".h5"):
        return path.read_text()
    import h5py

    with h5py.File(path) as file:
        attrs = dict(file["data"].attrs) if "data" in file else {}
    if "env_args" in attrs:
        return str(attrs["env_args"])
    if "env_info" in attrs:  # robosuite's own demonstrations
        info = json.loads(str(attrs["env_info"]))
        rest = {name: value for name, value in info.items() if name != "env_name"}
        named = {"env_name": attrs["env"], "env_version": attrs["repository_version"], "env_kwargs": rest}
        return json.dumps(named)
    raise UserError(f"env_args: {path} does not say which environment it is from")


def installed() -> tuple[int, int]:
    """Robosuite's version, as far as it matters here."""
    major, minor = version("robosuite").split(".")[:2]
    return int(major), int(minor)


def build(name: str, keywords: Mapping[str, Any], made_with: str = "") -> Any:
    """Make the simulator of a task, without pictures or a time limit.

    Args:
        name: the task, as robosuite calls it.
        keywords: robosuite's, with controllers as its version 1.4 takes them, or as 1.5 does on 1.5.
        made_with: robosuite's version that the keywords are from; "": 1.4.

    Raises:
        UserError: for controllers that the installed version does not know.
    """
    import robosuite

    robots = [keywords["robots"]] if isinstance(keywords["robots"], str) else list(keywords["robots"])
    given = keywords.get("controller_configs") or osc("OSC_POSE", True)
    # One copy per robot: robosuite writes into them.
    each = [deepcopy(config) for config in (given if isinstance(given, list) else [given] * len(robots))]
    fixed = {
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "ignore_done": True,
        "use_object_obs": True,
        "use_camera_obs": False,
        "robots": robots,
    }
    if installed() >= (1, 5):
        fixed["controller_configs"] = [by_part(config) for config in each]
        fixed["lite_physics"] = keywords.get("lite_physics", made_with.startswith("1.5"))
        fixed["seed"] = 0
    elif any("body_parts" in config for config in each):
        raise UserError(f"env_args of {name} is from robosuite 1.5: pip install 'robosuite>=1.5,<1.6' 'mujoco<3.9'")
    else:
        fixed["controller_configs"] = each
    return robosuite.make(name, **{**keywords, **fixed})


def by_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """A controller's settings as robosuite 1.5 takes them, its actions in the world's frame as in 1.4."""
    if "body_parts" in config:
        return dict(config)
    kind = "delta" if config.get("control_delta", True) else "absolute"
    arm = {**config, "input_type": kind, "input_ref_frame": "world", "gripper": {"type": "GRIP"}}
    return {"type": "BASIC", "body_parts": {"right": arm}}


class _UpToDate:
    """A simulator as a controller sees it: what follows from its state has been computed already."""

    def __init__(self, sim: Any) -> None:
        self._sim = sim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sim, name)

    def forward(self) -> None:
        """Nothing is left to do."""


def quicken(env: Any) -> None:
    """Compute every simulation step once, with results equal to the bit. Every reset undoes it.

    Robosuite 1.4 computes it three times: before its controllers, once more in them, and at the beginning of
    MuJoCo's step, though only controls change in between. A step becomes a fifth cheaper.
    """
    if installed() >= (1, 5):
        return
    for arm in arms(env):
        arm.sim = _UpToDate(env.sim)
    model, data = env.sim.model._model, env.sim.data._data
    env.sim.step = lambda with_udd=True: mujoco.mj_step2(model, data)


def reseed(env: Any, seed: int) -> None:
    """Make what follows, the next reset above all, depend on `seed` alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if installed() >= (1, 5):
        # In place: the samplers of places share the environment's generator and outlive its resets.
        env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def place(env: Any, physics: np.ndarray) -> Mapping[str, np.ndarray]:
    """Put the simulator into a state (Q,), the arms' goals where they are; its observations there."""
    size = 1 + env.sim.model.nq + env.sim.model.nv
    if physics.shape != (size,):
        raise UserError(f"{type(env).__name__} has states of {size} numbers, not {physics.shape[0]}: another task's?")
    env.sim.set_state_from_flattened(np.asarray(physics, np.float64))
    env.sim.forward()
    for arm in arms(env):
        arm.update(force=True)
        arm.reset_goal()
    return env._get_observations(force_update=True)


def arms(env: Any) -> list[Any]:
    """The arms' controllers."""
    if installed() >= (1, 5):
        return [robot.part_controllers[arm] for robot in env.robots for arm in robot.arms]
    return [robot.controller for robot in env.robots]


def actions(env: Any) -> tuple[tuple[str, ...], str, spaces.Box]:
    """What the numbers of an action are called and stand for, and their limits."""
    low, high = (limit.astype(np.float64) for limit in env.action_spec)
    each = arms(env)
    width = len(low) // len(each)
    axes = {"OSC_POSE": ("x", "y", "z", "rx", "ry", "rz"), "OSC_POSITION": ("x", "y", "z")}.get(each[0].name, ())
    if width != len(axes) + 1:  # controllers of an env_args that have no names of their own
        return (), "", spaces.Box(low, high, dtype=np.float64)
    prefixes = ("",) if len(each) == 1 else tuple(f"robot{i}_" for i in range(len(each)))
    names = tuple(prefix + name for prefix in prefixes for name in (*axes, "gripper"))
    if relative(each[0]):
        far = np.broadcast_to(each[0].output_max, len(axes))
        return names, arm_unit(far[::3].tolist()), spaces.Box(low, high, dtype=np.float64)
    arm = np.array([not name.endswith("gripper") for name in names])
    low, high = np.where(arm, -np.inf, low), np.where(arm, np.inf, high)
    return names, arm_unit(None), spaces.Box(low, high, dtype=np.float64)


def relative(controller: Any) -> bool:
    """Whether a controller's actions are movements."""
    return controller.input_type == "delta" if installed() >= (1, 5) else bool(controller.use_delta)
