"""Do actions look like what their convention says? Hints from the data alone, silent where they do not decide.

An absolute action lies near an observation in the same units: it is where the robot goes next. A delta lies near
zero and goes along with the change of an observation. A gripper that closes makes its recorded opening smaller.
Quaternions and the rows of matrices are unit vectors, and no angle goes beyond a whole turn.
"""

from __future__ import annotations

import numpy as np

from ..spec import ROTATIONS, SCALED
from .episodes import Episodes
from .timing import Level

SAMPLE = 10_000
"""rows that take part"""
NEAR = 0.3
"""an absolute action lies within this share of an observation's spread, in the median"""
SAME = 0.95
"""least correlation of an absolute action with the observation it follows"""
ALONG = 0.8
"""least correlation of a delta with the change that it causes"""
SLACK = 0.1
"""by how much a rotation may be off: recordings round"""
FEW = 0.01
"""share of actions that may be further off"""
GRIPPER_SURE = 0.2
"""correlation with the gripper's opening from which on its sign is believed"""


def mistaken(episodes: Episodes) -> list[tuple[Level, str]]:
    """(level, message) for actions that contradict their convention, or are absolute without saying so."""
    said = episodes.action_spec().convention
    found: list[tuple[Level, str]] = []
    looks, where = _mode(episodes)
    if looks and said.mode and looks != said.mode:
        found.append(("warning", f"said to be {said.mode} but looks {looks} ({where}): correct the convention"))
    elif looks == "absolute" and not said.mode:
        found.append(("info", f'looks absolute ({where}): say so when converting, --action \'{{"mode": "absolute"}}\''))
    return [*found, *(("warning", message) for message in [*_gripper(episodes), *_rotations(episodes)])]


def _mode(episodes: Episodes) -> tuple[str, str]:
    rows = _inner_rows(episodes)
    action = episodes.data["action"][rows].astype(np.float64)
    if len(rows) < 50 or not np.isfinite(action).all():
        return "", ""
    action = action[:, [i for i in range(action.shape[1]) if i not in episodes.action_spec().convention.gripper_at]]
    for key in episodes.obs_keys:
        if episodes.data[key].ndim != 2 or episodes.data[key].dtype.kind != "f":
            continue
        now = episodes.data[key][rows].astype(np.float64)
        change = episodes.data[key][rows + 1] - now
        if not (np.isfinite(now).all() and np.isfinite(change).all()):
            continue
        near = np.median(np.abs(action[:, :, None] - now[:, None]), 0) < NEAR * now.std(0)
        similar = _correlation(action, now) > SAME
        if (near & similar).any(1).sum() >= 2:
            return "absolute", f"elements follow '{key}'"
        along = _correlation(action, change) > ALONG
        centred = np.abs(np.median(action, 0)) < 2 * action.std(0)
        if (along.any(1) & centred & ~similar.any(1)).sum() >= 2:
            return "delta", f"elements go along with the change of '{key}'"
    return "", ""


def _gripper(episodes: Episodes) -> list[str]:
    said = episodes.action_spec().convention
    key = next((k for k in episodes.obs_keys if "gripper_qpos" in k and episodes.data[k].ndim == 2), "")
    if not said.gripper or not said.gripper_at or not key:
        return []
    opening = np.abs(episodes.data[key]).sum(1).astype(np.float64)
    rows = _inner_rows(episodes)
    command = episodes.data["action"][:, said.gripper_at[0]].astype(np.float64)
    sign = -1 if said.gripper == "closes" else 1
    along = float(_correlation(command[rows, None], (opening[rows + 1] - opening[rows])[:, None])[0, 0])
    if sign * along < -GRIPPER_SURE:
        does = "opens" if said.gripper == "closes" else "closes"
        return [
            f"element {said.gripper_at[0]} is said to {_verb(said.gripper)} the gripper but {does} it: turn its sign"
        ]
    return []


def _rotations(episodes: Episodes) -> list[str]:
    spec, action = episodes.action_spec(), episodes.data["action"].astype(np.float64)
    said = spec.convention
    if not said.rotation or spec.unit.startswith(SCALED):  # what a controller scales is no rotation yet
        return []
    size, found = ROTATIONS[said.rotation], []
    for at in said.rotation_at:
        value = action[:, at : at + size]
        share = (_off(value, said.rotation) > SLACK).mean() if value.shape[1] == size else 1.0
        if share > FEW:
            found.append(
                f"{100 * share:.3g} % of the numbers from {at} on are no {said.rotation}: correct the convention"
            )
    return found


def _off(value: np.ndarray, rotation: str) -> np.ndarray:
    """(N, size) -> (N,) how far from a rotation: from unit or orthogonal vectors, or beyond a whole turn."""
    if rotation in ("axis_angle", "euler_xyz"):
        turn = np.linalg.norm(value, axis=1) if rotation == "axis_angle" else np.abs(value).max(1)
        return turn - 2 * np.pi
    rows = value.reshape(len(value), -1, 4 if rotation.startswith("quat") else 3)
    return np.abs(rows @ rows.swapaxes(1, 2) - np.eye(rows.shape[1])).max((1, 2))


def _verb(does: str) -> str:
    return does.removesuffix("s")


def _inner_rows(episodes: Episodes) -> np.ndarray:
    """Rows with a next one in their episode, thinned to a sample."""
    inner = np.ones(episodes.num_steps, bool)
    inner[episodes.ends[episodes.lengths > 0] - 1] = False
    rows = np.flatnonzero(inner)
    return rows[:: max(1, len(rows) // SAMPLE)]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, A), (N, B) -> (A, B); 0 where either never changes."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = a.std(0)[:, None] * b.std(0)
    return np.divide(a.T @ b / len(a), scale, out=np.zeros_like(scale), where=scale > 1e-12)
