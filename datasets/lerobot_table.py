"""Parquet tables of a LeRobot dataset: the rows of one episode after the other, columns as arrays.

A file may hold many episodes, one after the other; it is read in pieces, so memory holds one episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import UserError
from .lerobot_info import Feature
from .video import decode_picture

ROWS = 256
"""rows decoded at a time; a row may hold pictures"""


def arrow() -> ModuleType:
    """The package `pyarrow`, with its parquet module.

    Raises:
        UserError: where it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("LeRobot datasets need pyarrow: pip install 'noisepilot[lerobot]'") from None
    return pyarrow


def read_table(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> list[dict[str, Any]]:
    """The rows of a small table, with the wanted columns.

    Raises:
        UserError: where it is missing or damaged.
    """
    with _opened(path) as file:
        columns = [name for name in file.schema_arrow.names if wanted(name)]
        return file.read(columns=columns).to_pylist()


def episode_tables(path: Path, columns: Sequence[str], start: int = 0) -> Iterator[tuple[int, Any]]:
    """The episodes of one file from number `start` on: (episode_index, its rows as a table).

    Raises:
        UserError: where the file is missing or damaged, or has not all columns.
    """
    pa = arrow()
    with _opened(path) as file:
        for name in ("episode_index", *columns):
            if name not in file.schema_arrow.names:
                raise UserError(f"{path} has no column '{name}', which meta/info.json declares")
        groups = [i for i in range(file.num_row_groups) if _reaches(file.metadata.row_group(i), start)]
        parts: list[Any] = []
        current = -1
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=["episode_index", *columns]):
            indices = _plain(batch.column("episode_index"), f"{path}: 'episode_index'", 0)
            cuts = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
            for first, last in pairwise(cuts):
                index = int(indices[first])
                if index != current and parts:
                    yield current, pa.Table.from_batches(parts)
                    parts = []
                current = index
                if index >= start:
                    parts.append(batch.slice(first, last - first))
        if parts:
            yield current, pa.Table.from_batches(parts)


def values(table: Any, feature: Feature, where: str) -> np.ndarray:
    """One column (L, ...) in the type and shape that the feature declares.

    Args:
        table: rows of one episode.
        feature: the column's declaration.
        where: the file and episode, for errors.

    Raises:
        UserError: for gaps, and for another type or shape than declared.
    """
    column = table.column(feature.key).combine_chunks()
    name = f"{where}: '{feature.key}'"
    if feature.dtype == "image":
        return _pictures(column, feature, name)
    array = _plain(column, name, len(feature.shape))
    dtype = np.dtype(feature.dtype)
    if array.dtype.kind != dtype.kind:
        raise UserError(f"{name} is {array.dtype} but declared {feature.dtype} in meta/info.json")
    if array[:1].size != np.prod(feature.shape, dtype=np.int64):
        raise UserError(f"{name} has shape {array.shape[1:]} but declared {feature.shape} in meta/info.json")
    return array.astype(dtype, copy=False).reshape(len(array), *feature.shape)


def _pictures(column: Any, feature: Feature, name: str) -> np.ndarray:
    # Structs of the file's bytes and its former path, as Hugging Face's datasets embeds pictures.
    frames = []
    for row in column.to_pylist():
        content = row.get("bytes") if isinstance(row, dict) else row
        if not isinstance(content, bytes):
            raise UserError(f"{name} holds no pictures, only paths: embed them")
        frames.append(decode_picture(content, name))
        if frames[-1].shape[:2] != feature.size:
            raise UserError(f"{name} holds a picture of {_by(frames[-1].shape)} but declares {_by(feature.size)}")
    return np.stack(frames)


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _plain(array: Any, name: str, dims: int) -> np.ndarray:
    """Numbers, or equally long lists of them up to `dims` deep, as an array."""
    pa = arrow()
    shape = [len(array)]
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise UserError(f"{name} has rows without a value")
        if pa.types.is_fixed_size_list(array.type):
            width = array.type.list_size
        else:
            widths = np.unique(np.diff(array.offsets.to_numpy()))
            if len(widths) > 1:
                raise UserError(f"{name} has rows of unequal length ({widths[0]} and {widths[-1]})")
            width = int(widths[0]) if len(widths) else 0
        shape.append(width)
        array = array.flatten()
    if array.null_count:
        raise UserError(f"{name} has rows without a value")
    if not (pa.types.is_boolean(array.type) or pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise UserError(f"{name} is {array.type}: expected numbers")
    if len(shape) - 1 > max(dims, 1):
        raise UserError(f"{name} has lists {len(shape) - 1} deep but declares {dims} in meta/info.json")
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _reaches(group: Any, start: int) -> bool:
    """Whether a row group may hold episodes from `start` on, by its statistics."""
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema == "episode_index" and column.statistics is not None and column.statistics.has_min_max:
            return column.statistics.max >= start
    return True


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pa = arrow()
    if not path.is_file():
        raise UserError(f"{path} is missing: restore it")
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a readable parquet file (damaged or cut off?): {reason}") from error
