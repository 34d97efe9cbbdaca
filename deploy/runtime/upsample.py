"""Commands for a controller that is faster than the policy. Shapes: A action dim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .spec import PolicyError


def ratio(hz: float, controller_hz: float) -> int:
    """Commands per action.

    Raises:
        PolicyError: if the controller's rate is no multiple of the policy's.
    """
    times = round(controller_hz / hz) if hz > 0 and math.isfinite(controller_hz) else 0
    if times < 1 or abs(times * hz - controller_hz) > 1e-6 * controller_hz:
        raise PolicyError(f"a controller at {controller_hz:g} Hz is no multiple of the policy's {hz:g} Hz")
    return times


def positions(action: Mapping[str, Any]) -> np.ndarray:
    """(A,) bool: elements that say where to go, on a straight scale, so that there is something between two of them.

    Those of a file whose convention says `absolute`, but for rotations and grippers. Steps, velocities and elements
    of unknown meaning are none.
    """
    dim, said = action["shape"][-1], action.get("convention") or {}
    found = np.full(dim, said.get("mode") == "absolute")
    size = ROTATION_SIZES.get(said.get("rotation", ""), 0)
    at = said.get("rotation_at") or ()
    for first in at:
        found[first : first + size] = False
    if size and not at:  # somewhere among them
        found[:] = False
    for at in said.get("gripper_at") or ():
        found[at] = False
    return found


ROTATION_SIZES = {"axis_angle": 3, "euler_xyz": 3, "quat_xyzw": 4, "quat_wxyz": 4, "6d": 6, "matrix": 9}
"""numbers of a rotation, as spec.py has them"""


def between(action: np.ndarray, following: np.ndarray | None, times: int, moving: np.ndarray) -> list[np.ndarray]:
    """`times` commands (A,) from one action on its way to the next: `moving` elements go there evenly, others stay."""
    if following is None or times == 1 or not moving.any():
        return [action] * times
    step = np.where(moving, following - action, 0)
    return [action] + [(action + step * (j / times)).astype(action.dtype) for j in range(1, times)]
