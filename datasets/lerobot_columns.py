"""Arrays as the columns of a LeRobot table, and what `info.json` declares of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from .episodes import recorded_specs
from .lerobot_info import BOOKKEEPING
from .lerobot_table import arrow

DEEPEST = 5
"""most dimensions of a step that the format knows"""


def declare(data: Mapping[str, np.ndarray], attrs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`features` of `info.json` for an episode's arrays (L, ...); names come from the attribute `specs`.

    Raises:
        UserError: for a key or a shape that the format cannot hold.
    """
    specs = recorded_specs(attrs)
    features = {}
    for key in sorted(data):
        if key in BOOKKEEPING:
            continue
        value = data[key]
        if "/" in key:
            raise UserError(f"LeRobot allows no '/' in a name: rename '{key}'")
        if value.ndim - 1 > DEEPEST:
            raise UserError(f"'{key}' has {value.ndim - 1} dimensions a step: LeRobot knows at most {DEEPEST}")
        names = list(specs[key].names) if key in specs and specs[key].names else None
        features[key] = _feature(value.shape[1:], str(value.dtype), names)
        if is_film(value):
            features[key] = _feature(value.shape[1:], "video", ["height", "width", "channels"])
    if {"next.terminated", "next.truncated"} <= data.keys():
        features["next.done"] = _feature((), "bool", None)
    kinds = {"timestamp": "float32", **dict.fromkeys(BOOKKEEPING[1:], "int64")}
    return features | {key: _feature((), kind, None) for key, kind in kinds.items()}


def is_film(value: np.ndarray) -> bool:
    """Colour pictures, (L, H, W, 3) uint8, go into a video."""
    return value.dtype == np.uint8 and value.ndim == 4 and value.shape[3] == 3


def table_of(data: Mapping[str, np.ndarray], features: Mapping[str, Mapping[str, Any]]) -> Any:
    """One episode's arrays as a table with a column for each feature that is no video."""
    stored = [key for key, feature in features.items() if feature["dtype"] != "video"]
    return arrow().table({key: _column(data[key]) for key in stored})


def _feature(shape: tuple[int, ...], dtype: str, names: list[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) or [1], "names": names}


def _column(value: np.ndarray) -> Any:
    pa = arrow()
    value = np.ascontiguousarray(value)
    column = pa.array(value.reshape(-1))
    if value[0].size == 1 and value.ndim <= 2:
        return column  # one number a step is no list
    if value.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(column, value.shape[1])
    for depth in range(value.ndim - 1, 0, -1):  # innermost lists first
        count = int(np.prod(value.shape[:depth], dtype=np.int64))
        offsets = np.arange(count + 1, dtype=np.int32) * value.shape[depth]
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column)
    return column
