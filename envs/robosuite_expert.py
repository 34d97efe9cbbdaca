"""A scripted controller of robosuite's Lift: above the cube and in line with it, down, close, up.

`data collect --actor expert` plays it. It looks at positions and the gripper alone and keeps nothing in mind: a cube
that slips or is pushed away is fetched again, so actions with noise on them still lead to success.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from .robosuite_build import STEP

OPEN, CLOSED = -1.0, 1.0
HOVER = 0.06
"""height (m) above the cube from which the hand goes down"""
ABOVE = 0.012
"""distance (m) from the cube's axis within which it may"""
LOW = 0.008
"""how far (m) below the cube's middle the hand aims: fingers that close higher slide off"""
AROUND = 0.007
"""height (m) above the cube's middle at which the fingers close"""
HELD = 0.06
"""open fingers are 0.08 m apart; nearer than this they are closing on the cube, or hold it"""
FIRM = 0.05
"""nearer than this they hold it"""
UP = 0.1
"""how far (m) the hand aims above where it is, to lift"""


def lift(seen: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """How far the hand should move, (3,) in m, and the gripper's action."""
    to_cube = np.asarray(seen["object-state"][:3]) - seen["robot0_eef_pos"]
    apart = float(np.abs(seen["robot0_gripper_qpos"]).sum())
    aside, height = float(np.linalg.norm(to_cube[:2])), -to_cube[2]
    if aside < 2 * ABOVE and height < (3 * AROUND if apart < HELD else AROUND):
        return np.array([0, 0, UP]) if apart < FIRM else to_cube - np.array([0, 0, LOW]), CLOSED
    # From aside first to a place above, or the cube would be pushed.
    return to_cube + np.array([0, 0, HOVER if aside > ABOVE else -LOW]), OPEN


def turn(seen: Mapping[str, np.ndarray]) -> float:
    """How far the fingers should turn about the vertical (rad) to close on two faces of the cube."""
    (x, y), (fx, fy) = _heading(seen["object-state"][3:7], 0), _heading(seen["robot0_eef_quat"], 1)
    return float((np.arctan2(y, x) - np.arctan2(fy, fx) + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def _heading(xyzw: np.ndarray, axis: int) -> np.ndarray:
    """The horizontal part (2,) of where a body's x or y axis points."""
    x, y, z, w = xyzw
    columns = (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z)),
    )
    return np.array(columns[axis])


def act(task: Any, seen: Mapping[str, np.ndarray], size: int) -> np.ndarray:
    """The expert's action (A,) in a task of robosuite.

    Args:
        task: its keywords.
        seen: robosuite's observations.
        size: A.

    Raises:
        UserError: for another task than Lift, or another controller than a delta OSC's.
    """
    if task.task != "Lift" or not task.delta or size != len(STEP[task.controller]) + 1:
        raise UserError("robosuite's scripted expert is for Lift, with delta of OSC_POSE or OSC_POSITION")
    move, gripper = lift(seen)
    far = STEP[task.controller]
    rotation = (0.0, 0.0, turn(seen))[: len(far) - 3]
    return np.clip([*np.concatenate([move, rotation]) / far, gripper], -1, 1)
