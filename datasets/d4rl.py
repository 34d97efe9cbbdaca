"""D4RL's HDF5 layout: observations, actions, rewards, terminals, timeouts, next_observations, all (T, ...).

Fu et al. 2020, https://arxiv.org/abs/2004.07219. The file has no episode boundaries: an episode ends at a
terminal, at a timeout, and at the end of the file. Files without timeouts end one also where an observation
does not continue the previous step's `next_observations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .hdf5 import array, attributes, column, is_hdf5, opened
from .source import Recorded

_KEYS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


def recognises(path: Path) -> bool:
    """Any HDF5 file: its keys stand at the root, so a file of no other layout is measured against this one."""
    return is_hdf5(path)


def open_source(path: Path) -> D4RL:
    """Open a file and find its episodes; its attributes are kept under `file`.

    Raises:
        UserError: where h5py is absent, the file is damaged, or keys are missing.
    """
    with opened(path) as file:
        columns = {key: found for key in _KEYS if (found := column(file, key)) is not None}
        missing = [key for key in ("observations", "actions") if key not in columns]
        if missing:
            raise UserError(f"{path} has no '{missing[0]}': it is not in D4RL's layout (which has {', '.join(_KEYS)})")
        if "terminals" not in columns and "timeouts" not in columns:
            raise UserError(f"{path} has neither 'terminals' nor 'timeouts': its episodes cannot be told apart")
        steps = len(columns["actions"])
        for key, value in columns.items():
            if len(value) != steps:
                raise UserError(f"{path}: '{key}' has {len(value)} rows but 'actions' has {steps}")
        if steps == 0:
            raise UserError(f"{path} holds no steps")
        own = attributes(file)
        attrs = {"env": own.get("env", ""), "source": path.name, "licence": own.get("licence", ""), "file": own}
        return D4RL(path, attrs, *_ends(file, columns, steps))


@dataclass(frozen=True, eq=False)
class D4RL:
    """A file whose episode ends are known."""

    path: Path
    attrs: Mapping[str, Any]
    last: np.ndarray
    """(T,) the step ends an episode"""
    terminated: np.ndarray
    """(T,)"""

    def __len__(self) -> int:
        return int(self.last.sum())

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Rows of one episode at a time."""
        ends = np.flatnonzero(self.last) + 1
        with opened(self.path) as file:
            for end, begin in zip(ends[start:], np.append(0, ends)[start:], strict=False):
                yield self._episode(file, slice(int(begin), int(end)))

    def _episode(self, file: Any, rows: slice) -> Recorded:
        data = {
            "observation.state": file["observations"][rows],
            "action": file["actions"][rows],
            "next.terminated": self.terminated[rows],
            "next.truncated": (self.last & ~self.terminated)[rows],
        }
        if "rewards" in file:
            data["next.reward"] = file["rewards"][rows].reshape(-1)
        after = "next_observations"
        return Recorded(data, {"observation.state": file[after][rows.stop - 1]} if after in file else {})


def _ends(file: Any, columns: Mapping[str, Any], steps: int) -> tuple[np.ndarray, np.ndarray]:
    terminated = _flags(file, "terminals", steps) if "terminals" in columns else np.zeros(steps, bool)
    last = terminated | (_flags(file, "timeouts", steps) if "timeouts" in columns else _jumps(file, columns, steps))
    last[-1] = True
    return last, terminated


def _flags(file: Any, key: str, steps: int) -> np.ndarray:
    flags = array(file, key)
    if flags.size != steps:
        raise UserError(f"'{key}' has shape {flags.shape} but must be one flag per step: {steps}")
    return flags.reshape(steps).astype(bool)


def _jumps(file: Any, columns: Mapping[str, Any], steps: int) -> np.ndarray:
    jumps = np.zeros(steps, bool)
    if "next_observations" in columns:
        after, now = file["next_observations"], file["observations"]
        for begin in range(0, steps - 1, 10_000):  # whole columns may be larger than memory
            end = min(begin + 10_000, steps - 1)
            jumps[begin:end] = (after[begin:end] != now[begin + 1 : end + 1]).reshape(end - begin, -1).any(1)
    return jumps
