"""Appending episodes to a dataset so that a kill at any moment loses none that was finished.

Rows go uncompressed to the end of their chunk's file: bytes that are committed are never written again. Last
of all the shape of `meta/episode_ends` is replaced, which commits the episode; rows beyond the last committed
end are overwritten by the next one. The folder is the layout of `zarr_layout`, readable by `load` at any
time; while it grows, and after a kill, other arrays have spare rows behind the last committed end.

Shapes: L steps of one episode, T steps and E episodes committed so far.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_folder, naming, refuse_existing
from .column import Column, flush
from .episodes import SCHEMA, Episodes
from .zarr_layout import RAW, create_array, create_group, keys, open_group

ENDS = "meta/episode_ends"


class EpisodeWriter:
    """Grows a dataset episode by episode; a folder begun earlier with equal attributes is continued.

    Raises:
        UserError: where `path` holds something else or other attributes, or another process writes there.
    """

    def __init__(self, path: str | Path, attrs: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.attrs = json.loads(json.dumps({**attrs, "schema": SCHEMA}))
        self._columns: dict[str, Column] = {}
        self._ends = np.zeros(0, np.int64)
        self._lock: int | None = None
        if (self.path / "zarr.json").is_file():
            self._open()
        else:
            refuse_existing(self.path)

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Episodes committed, E."""
        return len(self._ends)

    def append(self, episode: Mapping[str, np.ndarray], final: Mapping[str, np.ndarray] | None = None) -> None:
        """Commit one episode: it is on the disk when this returns.

        Args:
            episode: key -> (L, ...), the same keys, types and shapes every time.
            final: observation key -> (...): what followed the last action.

        Raises:
            UserError: for an episode that does not fit the earlier ones, or a full disk.
        """
        self.extend([(episode, final or {})])

    def extend(self, episodes: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]) -> None:
        """Commit several episodes `(episode, final)` at once: the disk is waited for once.

        Raises:
            UserError: as `append`; none of them is committed then.
        """
        checked = [_checked(episode, final) for episode, final in episodes]
        if not self._columns:
            self._create(checked[0])
        for values in checked:
            _require_same(self.path, values, self._columns)
        ends = self.num_steps + np.cumsum([len(values["data/action"]) for values in checked])
        with naming(self.path):
            touched = self._columns[ENDS].write(len(self), ends)
            for name in checked[0]:
                rows = np.concatenate([values[name] for values in checked])
                touched += self._columns[name].write(self._count(name), rows)
                self._columns[name].reserve(self._count(name) + len(rows))
            flush(touched)
            self._columns[ENDS].resize(len(self) + len(ends))
        self._ends = np.append(self._ends, ends)

    def close(self) -> None:
        """Cut the spare rows off and let other processes write here."""
        if self._lock is None:
            return
        try:
            with naming(self.path):
                for name, column in self._columns.items():
                    column.resize(self._count(name))
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def num_steps(self) -> int:
        """Steps committed, T."""
        return int(self._ends[-1]) if len(self) else 0

    def _count(self, name: str) -> int:
        """Rows of an array that are committed."""
        return self.num_steps if name.startswith("data/") else len(self)

    def _create(self, values: Mapping[str, np.ndarray]) -> None:
        with atomic_folder(self.path, replace=False) as folder:
            group = create_group(folder, self.attrs)
            for name, value in ({**values, ENDS: np.zeros(0, np.int64)}).items():
                create_array(group, name, (0, *value.shape[1:]), value.dtype, **RAW)
        self._open()

    def _open(self) -> None:
        self._lock = _lock(self.path)
        try:
            self._read()
        except BaseException:
            self._unlock()
            raise

    def _read(self) -> None:
        group = open_group(self.path)
        _require_attrs(self.path, dict(group.attrs), self.attrs)
        names = [f"{parent}/{key}" for parent in ("data", "meta/final") for key in keys(group, parent)]
        self._columns = {name: Column(self.path, name) for name in [*names, ENDS]}
        ends: Any = group[ENDS]
        self._ends = np.asarray(ends[:], np.int64)


def _checked(episode: Mapping[str, np.ndarray], final: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    # The constructor refuses whatever could not be read back.
    steps = len(episode["action"]) if "action" in episode else 0
    ends = {key: np.asarray(value)[None] for key, value in final.items()}
    data = {key: np.asarray(value) for key, value in episode.items()}
    Episodes(data, np.array([steps]), final=ends)
    return {f"data/{key}": value for key, value in data.items()} | {
        f"meta/final/{key}": value for key, value in ends.items()
    }


def _require_same(path: Path, values: Mapping[str, np.ndarray], columns: Mapping[str, Column]) -> None:
    ours = {name: (str(value.dtype), value.shape[1:]) for name, value in values.items()}
    theirs = {name: (str(column.dtype), column.row_shape) for name, column in columns.items() if name != ENDS}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            now, earlier = ours.get(name, "absent"), theirs.get(name, "absent")
            raise UserError(f"{path}: '{name}' is {now} but was {earlier} before: collect into another folder")


def _require_attrs(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for key in sorted(stored.keys() | given.keys()):
        if stored.get(key) != given.get(key):
            raise UserError(
                f"{path} was begun with {key} {stored.get(key)!r}, not {given.get(key)!r}: "
                "repeat its settings to continue it, or collect into another folder"
            )


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"another process is writing to {path}: wait for it or choose another folder") from None
    return handle
