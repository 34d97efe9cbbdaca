"""Numpy archives, in DPPO's layout or a plain one, read without pickle and one episode at a time.

DPPO (Ren et al. 2024, https://arxiv.org/abs/2409.00588): `states`, `actions` (T, ...), `traj_lengths` (E,),
maybe `rewards`, `terminals`, `images`. Plain: `action` or `actions` (T, A), `episode_ends` (E,), and every
other array of T rows is an observation of its own name (`observations/state` and `state` alike).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .archive import is_zip, members
from .names import renamed
from .source import Recorded
from .validity import OBS, boundaries

_RENAMED = {
    "states": "observation.state",
    "observations": "observation.state",
    "obs": "observation.state",
    "images": "observation.image",
    "img": "observation.image",
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


@dataclass(frozen=True)
class Header:
    """One array of an archive, before its values are read."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    """of the first value in the member"""


@dataclass(frozen=True, eq=False)
class Npz:
    """An archive whose arrays are known and fit each other."""

    path: Path
    attrs: Mapping[str, Any]
    ends: np.ndarray
    """(E,)"""
    columns: Mapping[str, Header]
    """our key -> array of T rows"""

    def __len__(self) -> int:
        return len(self.ends)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Rows of one episode at a time, unpacked as they are needed."""
        with _readable(self.path) as archive, ExitStack() as stack:
            streams = {key: stack.enter_context(archive.open(header.member)) for key, header in self.columns.items()}
            begin = int(self.ends[start - 1]) if start else 0
            for key, header in self.columns.items():
                streams[key].seek(header.offset + begin * _row_bytes(header))
            for end in map(int, self.ends[start:]):
                rows = {key: _next(streams[key], header, end - begin) for key, header in self.columns.items()}
                yield Recorded({key: _shape(key, value) for key, value in rows.items()})
                begin = end


def recognises(path: Path) -> bool:
    """A ZIP archive with an array of numpy's in it."""
    return is_zip(path) and (path.suffix == ".npz" or any(name.endswith(".npy") for name in members(path)))


def open_source(path: Path) -> Npz:
    """Open an archive; arrays without a row per step are left out and listed in the attributes.

    Raises:
        UserError: for a damaged archive, missing keys, pickled objects, or arrays that do not fit each other.
    """
    with _readable(path) as archive:
        headers = {name.removesuffix(".npy"): _header(archive, info) for name, info in members(path).items()}
        ends = _ends(archive, headers, path)
    steps = int(ends[-1]) if len(ends) else 0
    ours = renamed({key: _rename(key) for key in headers if key not in _BOUNDARIES})
    arrays = {key: headers[name] for name, key in ours.items()}
    if "action" not in arrays:
        raise UserError(f"{path} has no 'action' or 'actions': it has {', '.join(sorted(headers))}")
    if arrays["action"].shape[:1] != (steps,):
        rows = arrays["action"].shape[:1] or (0,)
        raise UserError(f"{path}: 'actions' has {rows[0]} rows but the episodes sum up to {steps}")
    columns = {key: header for key, header in arrays.items() if header.shape[:1] == (steps,)}
    left_out = sorted(arrays.keys() - columns)
    lost = [key for key in left_out if key.startswith(("next.", "observation.state"))]
    if lost:
        raise UserError(f"{path}: '{lost[0]}' has {arrays[lost[0]].shape} but must have {steps} rows")
    attrs = {"env": "", "source": path.name, "licence": ""}
    return Npz(path, attrs | ({"left_out": left_out} if left_out else {}), ends, columns)


@contextmanager
def _readable(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path} is not a readable .npz of plain arrays: {error}") from error


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    if not info.filename.endswith(".npy"):
        raise ValueError(f"'{info.filename}' is no array: leave it out")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = read(stream)
        header = Header(info.filename, shape, dtype, stream.tell())
    if dtype.hasobject:
        raise ValueError(f"'{info.filename}' holds pickled objects, which are never read")
    if columns_first and len(shape) > 1:
        raise ValueError(f"'{info.filename}' is stored column by column: save np.ascontiguousarray of it")
    if header.offset + int(np.prod(shape, dtype=object)) * dtype.itemsize != info.file_size:
        raise ValueError(f"'{info.filename}' is cut off: it holds fewer values than its shape {shape} needs")
    return header


def _ends(archive: zipfile.ZipFile, headers: Mapping[str, Header], path: Path) -> np.ndarray:
    for key in _BOUNDARIES:
        if key in headers:
            with archive.open(headers[key].member) as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
            return boundaries(values if key == "episode_ends" else np.cumsum(values), key)
    raise UserError(
        f"{path} has neither 'episode_ends' nor 'traj_lengths': it is not a dataset (it has "
        f"{', '.join(sorted(headers)[:8])})"
    )


def _next(stream: Any, header: Header, count: int) -> np.ndarray:
    wanted = count * _row_bytes(header)
    content = bytearray(stream.read(wanted))  # a bytearray, so that the array may be written to
    if len(content) != wanted:
        raise ValueError(f"'{header.member}' is cut off")
    return np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])


def _row_bytes(header: Header) -> int:
    return int(np.prod(header.shape[1:], dtype=np.int64)) * header.dtype.itemsize


def _rename(key: str) -> str:
    if key in _RENAMED:
        return _RENAMED[key]
    if key == "action" or key.startswith((OBS, "next.")):
        return key.replace("/", ".")
    for prefix in ("observations/", "observation/", "obs/"):
        key = key.removeprefix(prefix)
    return OBS + key.replace("/", ".")


def _shape(key: str, value: np.ndarray) -> np.ndarray:
    if key in ("next.terminated", "next.truncated"):
        value = value.astype(bool)
    return value.reshape(len(value)) if key.startswith("next.") and value.size == len(value) else value
