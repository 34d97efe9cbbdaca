"""What a set must satisfy: to be one at all (`check_*`), and to be trained on (`require_sound`).

All raise a UserError of one line that names the key and the fix. T steps, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from .episodes import Episodes

OBS = "observation."
MOST_CHANNELS = 4
"""of a picture: colours and a depth"""


def check_ends(ends: np.ndarray) -> None:
    """Boundaries (E,) increase from a first episode on."""
    if ends.ndim != 1 or len(ends) == 0:
        raise UserError("a dataset needs at least one episode: episode_ends is empty or not a flat list")
    if ends[0] < 0 or (np.diff(ends) < 0).any():
        raise UserError("episode_ends must not decrease: sort it, or rebuild it from the episode lengths")
    if ends[-1] == 0:
        raise UserError("the dataset holds no steps: every episode is empty")


def boundaries(values: np.ndarray, name: str) -> np.ndarray:
    """Ends (E,) as a file has them under `name`, in whole numbers.

    Raises:
        UserError: for other numbers, none, or ends that decrease.
    """
    values = values.reshape(-1)
    if values.dtype.kind not in "fiu" or not (np.isfinite(values) & (np.mod(values, 1) == 0)).all():
        raise UserError(f"'{name}' must hold whole numbers, one per episode")
    if len(values) == 0:
        raise UserError(f"'{name}' is empty: the dataset holds no episodes")
    if values[0] < 0 or (values[1:] < values[:-1]).any():
        raise UserError(f"'{name}' must not be negative or decrease: rebuild it from the episodes' lengths")
    return values.astype(np.int64)


def check_rows(arrays: Mapping[str, np.ndarray], rows: int, per: str) -> None:
    """Every array has `rows` rows of numbers."""
    for key, value in arrays.items():
        if value.ndim == 0 or len(value) != rows:
            raise UserError(f"'{key}' has shape {value.shape} but must have one row per {per}: {rows}")
        if 0 in value.shape[1:]:
            raise UserError(f"'{key}' has shape {value.shape}: its steps hold nothing; leave the key out")
        if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:  # zarr and torch know no longer numbers
            raise UserError(f"'{key}' has type {value.dtype}: only numbers and booleans can be read")


def check_keys(data: Mapping[str, np.ndarray], final: Mapping[str, np.ndarray]) -> None:
    """There are actions and observations, and outcomes are one number per step."""
    if "action" not in data:
        raise UserError(f"a dataset needs 'action': found {', '.join(sorted(data)) or 'nothing'}")
    if not any(key.startswith(OBS) for key in data):
        raise UserError(f"a dataset needs an 'observation.<name>': found {', '.join(sorted(data))}")
    if data["action"].ndim != 2:
        raise UserError(f"'action' has shape {data['action'].shape} but must be (steps, action dimension)")
    for key in [key for key in data if key.startswith("next.")]:
        if data[key].ndim != 1:
            raise UserError(f"'{key}' has shape {data[key].shape} but must be one number per step")
    for key, value in final.items():
        if key not in data or value.shape[1:] != data[key].shape[1:]:
            raise UserError(f"final '{key}' has no observation of its shape {value.shape[1:]} in the data")


def picture_fault(value: np.ndarray) -> str:
    """What is wrong with pictures (T, height, width, channels), and the fix; empty where nothing is."""
    shape = value.shape[1:]
    if shape[0] <= MOST_CHANNELS < shape[2]:
        return f"shape {shape}, but channels come last: write them as {(*shape[1:], shape[0])}"
    return "" if value.dtype == np.uint8 else f"type {value.dtype}, but pictures are uint8, from 0 to 255: convert them"


def require_sound(episodes: Episodes, path: str | Path) -> Episodes:
    """Refuse values that no training survives: NaN, infinity, episodes without a step.

    Raises:
        UserError: naming the key, the row and the way to see all faults.
    """
    advice = f"`noisepilot data check {path}` lists all faults"
    if (episodes.lengths == 0).any():
        raise UserError(f"{path}: episode {int(episodes.lengths.argmin())} has no steps; {advice}")
    require_finite(episodes.data, str(path), advice)
    return episodes


def require_finite(data: Mapping[str, np.ndarray], where: str, advice: str = "drop or repair it") -> None:
    """Refuse NaN and infinity.

    Raises:
        UserError: naming the key and the row.
    """
    for key, value in data.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            row = int(np.argwhere(~np.isfinite(value))[0][0])
            raise UserError(f"{where}: '{key}' holds a NaN or infinite value (first in row {row}); {advice}")
