"""A scripted controller of LIBERO's tasks in which a bowl goes onto the plate: grasp its rim, lift, carry, lower.

`data collect --actor expert` plays it. Like robosuite's Lift (`robosuite_expert.py`) it looks at what is seen and
keeps nothing in mind: a bowl that slips is fetched again, a hand that noise has tilted turns back. It knows nothing
of what else stands there.

A bowl is too wide for the hand, so one finger goes inside: the hand stands above the rim, aside from the middle.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import UserError
from .robosuite_build import STEP
from .robosuite_expert import CLOSED, OPEN

THING, GOAL = "akita_black_bowl_1", "plate_1"
TASKS = {("libero_goal", 8)} | {("libero_spatial", number) for number in range(10)}
"""suite and number of the tasks whose success is THING on GOAL"""
RIM = np.array([0.0, 0.048, 0.035])
"""where the hand holds the bowl (m), from its middle: on the side away from the cabinet"""
HOVER = 0.07
"""height (m) above the rim from which the hand goes down"""
ASIDE = 0.01
"""distance (m) within which it may go all the way"""
STEEP = 3.0
"""height per distance beyond that"""
AROUND = 0.01
"""distance (m) aside and in height at which the fingers close; twice that while they do"""
SLACK = 0.03
"""how far (m) the bowl may slip in a closed hand; farther away, or opening again, it has lost it"""
HELD = 0.06
"""open fingers are 0.08 m apart; nearer than this they are closing on the rim, or hold it"""
FIRM = 0.012
"""nearer than this they hold it"""
CARRY = 0.06
"""height (m) of the carried bowl above the plate"""
GAIN = 2.0
"""the arm lags behind: it goes about a quarter of the asked way in a step"""


def act(suite: str, number: int, seen: Mapping[str, np.ndarray]) -> np.ndarray:
    """The expert's action (7,).

    Args:
        suite: LIBERO's name of it.
        number: the task's place in it.
        seen: the simulator's observations.

    Raises:
        UserError: for another task than those of TASKS.
    """
    if (suite, number) not in TASKS:
        raise UserError("LIBERO's scripted expert puts a bowl on a plate: libero/goal/8, libero/spatial/0 ... 9")
    move, gripper = carry(seen)
    far = np.array(STEP["OSC_POSE"])
    way = np.concatenate([move, upright(seen["robot0_eef_quat"])])
    return np.clip([*GAIN * way / far, gripper], -1, 1)


def carry(seen: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """How far the hand should move, (3,) in m, and the gripper's action."""
    bowl, plate = seen[f"{THING}_pos"], seen[f"{GOAL}_pos"]
    to_rim = bowl + RIM - seen["robot0_eef_pos"]
    apart = float(np.abs(seen["robot0_gripper_qpos"]).sum())
    near = SLACK if apart < FIRM else 2 * AROUND if apart < HELD else AROUND
    if np.linalg.norm(to_rim[:2]) < near and abs(to_rim[2]) < near:
        return (funnel(plate - bowl, CARRY) if apart < FIRM else to_rim), CLOSED
    return funnel(to_rim, HOVER), OPEN


def funnel(way: np.ndarray, above: float) -> np.ndarray:
    """The way (3,) to a place from above: the farther aside, the higher, at most `above`; nothing there is pushed."""
    height = float(np.clip(STEEP * (np.linalg.norm(way[:2]) - ASIDE), 0, above))
    up = way[2] + height
    return np.array([*(way[:2] * (up < above / 2)), up])


def upright(xyzw: np.ndarray) -> np.ndarray:
    """The rotation (3,) in the world, axis times angle, after which the fingers point down and open along y."""
    x, y, z, w = xyzw if xyzw[0] >= 0 else -xyzw
    axis = np.array([w, z, -y])  # half a turn about x, after the hand's own undone; its cosine of half the angle is x
    size = float(np.linalg.norm(axis))
    return axis * (2 * np.arctan2(size, x) / size if size > 1e-9 else 2.0)
