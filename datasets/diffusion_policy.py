"""Diffusion Policy's replay buffers: zarr v2, a folder or a .zip, `data/<key>` (T, ...) and `meta/episode_ends` (E,).

Chi et al. 2023, https://arxiv.org/abs/2303.04137. `action` is the action; every other array of `data` is an
observation of its name, cameras as `observation.images.<camera>` (`img` alone: `observation.image`).
What zarr would unpack is looked through first, see `foreign_zarr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import UserError
from .archive import is_zip, members
from .foreign_zarr import look_through, opened
from .names import observation_key, renamed
from .source import Recorded
from .validity import boundaries

_ENDS = "meta/episode_ends"
_OUTCOMES = {"reward": "next.reward", "terminal": "next.terminated", "success": "next.success"}


def recognises(path: Path) -> bool:
    """A folder or an archive with the metadata of a zarr v2 group and `episode_ends`."""
    if path.is_dir():
        return (path / _ENDS / ".zarray").is_file()
    return is_zip(path) and any(name.endswith(f"{_ENDS}/.zarray") for name in members(path))


def open_source(path: Path) -> ReplayBuffer:
    """Open a replay buffer.

    Raises:
        UserError: for what `look_through` refuses, missing arrays, or arrays that do not fit each other.
    """
    absent = look_through(path)
    root = min((name for name in absent if name.endswith(_ENDS)), key=len).removesuffix(_ENDS)
    with opened(path, root) as group:
        ends = boundaries(np.asarray(_array(group, _ENDS)[:]), _ENDS)
        data = group.get("data")
        arrays = dict(data.arrays()) if isinstance(data, zarr.Group) else {}
    if "action" not in arrays:
        raise UserError(f"{path} has no 'data/action': it has {', '.join(sorted(arrays)) or 'no data'}")
    steps = int(ends[-1]) if len(ends) else 0
    for key, value in arrays.items():
        if value.ndim == 0 or value.shape[0] != steps:
            raise UserError(f"{path}: 'data/{key}' has shape {value.shape} but the episodes sum up to {steps} steps")
    attrs: dict[str, Any] = {"env": "", "source": path.name, "licence": ""}
    keys = renamed({name: _key(name, value) for name, value in arrays.items()})
    if lost := {keys[name]: count for name in arrays if (count := absent[f"{root}data/{name}"])}:
        attrs["absent_chunks"] = lost
    return ReplayBuffer(path, root, attrs, ends, keys)


@dataclass(frozen=True, eq=False)
class ReplayBuffer:
    """A buffer whose arrays are known and fit each other."""

    path: Path
    root: str
    """folder inside an archive"""
    attrs: Mapping[str, Any]
    ends: np.ndarray
    """(E,)"""
    keys: Mapping[str, str]
    """their name -> our key"""

    def __len__(self) -> int:
        return len(self.ends)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Rows of one episode at a time."""
        begin = int(self.ends[start - 1]) if start else 0
        with opened(self.path, self.root) as group:
            arrays = {name: _array(group, f"data/{name}") for name in self.keys}
            for end in map(int, self.ends[start:]):
                yield Recorded(
                    {self.keys[name]: _rows(value[begin:end], self.keys[name]) for name, value in arrays.items()}
                )
                begin = end


def _array(group: zarr.Group, name: str) -> Any:
    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise UserError(f"'{name}' is missing")
    return found


def _key(name: str, value: zarr.Array) -> str:
    if name == "action":
        return name
    return _OUTCOMES.get(name) or observation_key(name, value.shape[1:], np.dtype(value.dtype))


def _rows(value: Any, key: str) -> np.ndarray:
    value = np.asarray(value)
    if key == "next.terminated":
        value = value.astype(bool)
    return value.reshape(len(value)) if key.startswith("next.") and value.size == len(value) else value
