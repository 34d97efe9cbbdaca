"""The layout on disk: zarr 3, `data/<key>` (T, ...), `meta/episode_ends` (E,), `meta/final/<key>` (E, ...).

The group's attributes are the set's: schema version, specs, fps, source, licence. A chunk is a run of whole
rows, and every chunk is a file, also one of zeros: a file that went missing is noticed, not read as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import UserError
from ..files import atomic_folder
from .episodes import SCHEMA, Episodes
from .source import Recorded

CHUNK_BYTES = 2**20
CHECKSUM = "sha256"
"""file beside the metadata of a converted set"""
UNFINISHED = "unfinished"
"""attribute of a set that is being converted: episodes it will have"""
RAW: dict[str, Any] = {"compressors": None, "filters": None}


def write(path: str | Path, episodes: Episodes) -> None:
    """Write a set, whole or not at all."""
    with atomic_folder(path, replace=False) as folder:
        group = create_group(folder, episodes.attrs)
        for key, value in episodes.data.items():
            create_array(group, f"data/{key}", value.shape, value.dtype)[:] = value
        for key, value in episodes.final.items():
            create_array(group, f"meta/final/{key}", value.shape, value.dtype)[:] = value
        create_array(group, "meta/episode_ends", episodes.ends.shape, episodes.ends.dtype)[:] = episodes.ends


def create_group(folder: Path, attrs: Mapping[str, Any]) -> zarr.Group:
    """A new root group with a set's attributes."""
    return zarr.open_group(folder, mode="w", zarr_format=3, attributes={**attrs, "schema": SCHEMA})


def create_array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype, **codecs: Any) -> zarr.Array:
    """A new array of about `CHUNK_BYTES` a chunk; `codecs` replace zarr's own compression (see `RAW`)."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    chunks = (max(1, CHUNK_BYTES // row_bytes), *shape[1:])
    return group.create_array(
        name, shape=shape, chunks=chunks, dtype=dtype, config={"write_empty_chunks": True}, **codecs
    )


def recognises(path: Path) -> bool:
    """A folder with zarr 3's metadata; whether it is a set of ours shows on opening."""
    return path.is_dir() and (path / "zarr.json").is_file()


def open_source(path: Path) -> ZarrLayout:
    """Open a set.

    Raises:
        UserError: where `path` is no set of ours, is of a newer version, or is damaged.
    """
    group = open_group(path)
    if UNFINISHED in group.attrs:
        raise UserError(f"{path} is a conversion that was not finished: repeat the same `data convert` to go on")
    with damage(path):
        ends = np.asarray(_rows(path, group, "meta/episode_ends")[:])
        source = ZarrLayout(path, dict(group.attrs), ends, {}, {})
        steps = int(ends[-1]) if len(ends) else 0
        for key in keys(group, "data"):
            source.data[key] = _rows(path, group, f"data/{key}", steps)
        for key in keys(group, "meta/final"):
            source.final[key] = _rows(path, group, f"meta/final/{key}", len(ends))
    return source


@dataclass(frozen=True, eq=False)
class ZarrLayout:
    """A set on disk; its arrays may have spare rows behind the last end."""

    path: Path
    attrs: Mapping[str, Any]
    ends: np.ndarray
    data: dict[str, zarr.Array]
    final: dict[str, zarr.Array]

    def __len__(self) -> int:
        return len(self.ends)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Rows of one episode at a time."""
        for i in range(start, len(self)):
            rows = slice(int(self.ends[i - 1]) if i else 0, int(self.ends[i]))
            with damage(self.path):
                data = {key: np.asarray(value[rows]) for key, value in self.data.items()}
                final = {key: np.asarray(value[i]) for key, value in self.final.items()}
            yield Recorded(data, final)

    def whole(self) -> Episodes:
        """The set in memory."""
        with damage(self.path):
            steps = int(self.ends[-1]) if len(self) else 0
            data = {key: np.asarray(value[:steps]) for key, value in self.data.items()}
            final = {key: np.asarray(value[: len(self)]) for key, value in self.final.items()}
        return Episodes(data, self.ends, self.attrs, final)


def open_group(path: Path) -> zarr.Group:
    """The root group of a set, for reading.

    Raises:
        UserError: where `path` is no set of ours, is of a newer version, or is damaged.
    """
    with damage(path):
        group = zarr.open_group(path, mode="r", zarr_format=3)
        schema = group.attrs.get("schema")
    if not isinstance(schema, int):
        raise UserError(f"{path} is a zarr folder but not a dataset of noisepilot: its attributes name no schema")
    if schema > SCHEMA:
        raise UserError(f"{path} was written by a newer noisepilot (schema {schema} > {SCHEMA}): upgrade")
    return group


def keys(group: zarr.Group, name: str) -> list[str]:
    """Names of the arrays in a subgroup, which may be absent."""
    child = group.get(name)
    return sorted(child.array_keys()) if isinstance(child, zarr.Group) else []


def _rows(path: Path, group: zarr.Group, name: str, count: int | None = None) -> zarr.Array:
    # `count` may be less than the array holds: rows of an episode that was never committed.
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise UserError(f"{path} is damaged: '{name}' is missing; restore it or collect again")
    count = array.shape[0] if count is None else count
    if array.shape[0] < count:
        raise UserError(f"{path} is damaged: '{name}' has {array.shape[0]} of {count} rows")
    tail = ["0"] * (array.ndim - 1)
    for chunk in range(-(-count // array.chunks[0])):
        file = path.joinpath(*name.split("/"), "c", str(chunk), *tail)
        if not file.is_file():
            raise UserError(f"{path} is damaged: {file.relative_to(path)} is missing; restore it or collect again")
    return array


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """What zarr and its codecs raise becomes a UserError that names the set."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:  # what zarr and its codecs raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as a dataset: {reason}; restore it or collect again") from error
