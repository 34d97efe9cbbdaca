"""LeRobot's names for what other formats call their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import UserError
from .validity import OBS

_CAMERA_SUFFIXES = ("_image", "_rgb", "_img", "_images")
_LONE_CAMERA = ("image", "img", "images", "rgb", "pixels")


def observation_key(name: str, row_shape: Sequence[int], dtype: np.dtype) -> str:
    """`observation.<name>`, cameras as `observation.images.<camera>`, a lone camera as `observation.image`.

    Args:
        name: as the format has it; `/` becomes a dot.
        row_shape: of one step; a camera has (height, width, 1, 3 or 4) bytes.
        dtype: of its values.
    """
    name = name.replace("/", ".")
    if dtype != np.uint8 or len(row_shape) != 3 or row_shape[-1] not in (1, 3, 4):
        return OBS + name
    if name in _LONE_CAMERA:
        return OBS + "image"
    camera = next((name.removesuffix(suffix) for suffix in _CAMERA_SUFFIXES if name.endswith(suffix)), name)
    return OBS + "images." + camera.removeprefix("images.")


def renamed(keys: Mapping[str, str]) -> dict[str, str]:
    """Their name -> our key, as given.

    Raises:
        UserError: where two arrays would become one.
    """
    first: dict[str, str] = {}
    for name, key in keys.items():
        if first.setdefault(key, name) != name:
            raise UserError(f"'{first[key]}' and '{name}' would both become '{key}': leave one out or rename it")
    return dict(keys)
