"""Numpy archives, in DPPO's layout or a plain one, read without pickle.

DPPO (Ren et al. 2024, https://arxiv.org/abs/2409.00588): `states`, `actions` (T, ...), `traj_lengths` (E,),
maybe `rewards`, `terminals`, `images`. Plain: `action` or `actions` (T, A), `episode_ends` (E,), and every
other array of T rows is an observation of its own name (`observations/state` and `state` alike).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import UserError
from .episodes import Episodes
from .validity import OBS

_RENAMED = {
    "states": "observation.state",
    "observations": "observation.state",
    "obs": "observation.state",
    "images": "observation.image",
    "actions": "action",
    "actions/action": "action",
    "rewards": "next.reward",
    "reward": "next.reward",
    "terminals": "next.terminated",
    "terminated": "next.terminated",
    "timeouts": "next.truncated",
    "truncated": "next.truncated",
    "success": "next.success",
}
_BOUNDARIES = ("episode_ends", "traj_lengths")


def read(path: str | Path) -> Episodes:
    """Read an archive.

    Raises:
        UserError: for a damaged archive, missing keys, or arrays that do not fit each other.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a readable .npz of plain arrays: {error}") from error
    return from_arrays(arrays, str(path))


def from_arrays(arrays: Mapping[str, np.ndarray], name: str) -> Episodes:
    """Name arrays as LeRobot does; those without a row per step are left out and listed in the attributes."""
    ends = _ends(arrays, name)
    steps = int(ends[-1]) if len(ends) else 0
    renamed = {_rename(key): value for key, value in arrays.items() if key not in _BOUNDARIES}
    if "action" not in renamed:
        raise UserError(f"{name} has no 'action' or 'actions': it has {', '.join(sorted(arrays))}")
    if len(renamed["action"]) != steps:
        raise UserError(f"{name}: 'actions' has {len(renamed['action'])} rows but the episodes sum up to {steps}")
    data = {key: _shape(key, value) for key, value in renamed.items() if value.ndim and len(value) == steps}
    left_out = sorted(set(renamed) - set(data))
    lost = [key for key in left_out if key.startswith(("next.", "observation.state"))]
    if lost:
        raise UserError(f"{name}: '{lost[0]}' has {renamed[lost[0]].shape} but must have {steps} rows")
    attrs = {"env": "", "source": Path(name).name, "licence": ""}
    return Episodes(data, ends, attrs | ({"left_out": left_out} if left_out else {}))


def _ends(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if "episode_ends" in arrays:
        return np.asarray(arrays["episode_ends"], np.int64).reshape(-1)
    if "traj_lengths" in arrays:
        return np.cumsum(arrays["traj_lengths"], dtype=np.int64).reshape(-1)
    raise UserError(
        f"{name} has neither 'episode_ends' nor 'traj_lengths': it is not a dataset (it has "
        f"{', '.join(sorted(arrays)[:8])})"
    )


def _rename(key: str) -> str:
    if key in _RENAMED:
        return _RENAMED[key]
    if key == "action" or key.startswith((OBS, "next.")):
        return key
    for prefix in ("observations/", "observation/", "obs/"):
        key = key.removeprefix(prefix)
    return OBS + key.replace("/", ".")


def _shape(key: str, value: np.ndarray) -> np.ndarray:
    if key in ("next.terminated", "next.truncated"):
        value = value.astype(bool)
    return value.reshape(len(value)) if key.startswith("next.") and value.size == len(value) else value
