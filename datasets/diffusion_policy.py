"""Diffusion Policy's replay buffers: zarr v2, a folder or a .zip, `data/<key>` (T, ...) and `meta/episode_ends` (E,).

Chi et al. 2023, https://arxiv.org/abs/2303.04137. `action` is the action; every other array of `data` is an
observation of its name, cameras as `observation.images.<camera>` (`img` alone: `observation.image`).
Metadata is looked through before zarr opens an array: only numbers, in codecs that only unpack them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import UserError
from .archive import is_zip, members
from .names import observation_key
from .source import Recorded

CODECS = ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "crc32")
CHUNK_BYTES = 2**31
"""largest chunk that is unpacked, which Blosc has for a limit too"""
_OUTCOMES = {"reward": "next.reward", "terminal": "next.terminated", "success": "next.success"}


def recognises(path: Path) -> bool:
    """A folder or an archive with the metadata of a zarr v2 group and `episode_ends`."""
    if path.is_dir():
        return (path / "meta/episode_ends/.zarray").is_file()
    return is_zip(path) and any(name.endswith("meta/episode_ends/.zarray") for name in members(path))


def open_source(path: Path) -> ReplayBuffer:
    """Open a replay buffer.

    Raises:
        UserError: for damaged or missing arrays, pickled objects, unknown codecs, or arrays that do not fit each other.
    """
    headers, root = _metadata(path)
    for name, header in headers.items():
        _refuse_unsafe(name, header)
    with _group(path, root) as group:
        ends = _array(group, "meta/episode_ends")[:]
        ends = np.asarray(ends, np.int64).reshape(-1)
        data = group.get("data")
        arrays = dict(data.arrays()) if isinstance(data, zarr.Group) else {}
    if "action" not in arrays:
        raise UserError(f"{path} has no 'data/action': it has {', '.join(sorted(arrays)) or 'no data'}")
    steps = int(ends[-1]) if len(ends) else 0
    for key, value in arrays.items():
        if value.ndim == 0 or value.shape[0] != steps:
            raise UserError(f"{path}: 'data/{key}' has shape {value.shape} but the episodes sum up to {steps} steps")
    if (np.diff(ends, prepend=0) < 0).any():
        raise UserError(f"{path}: 'meta/episode_ends' decreases: the file is damaged")
    keys = {name: _key(name, value) for name, value in arrays.items()}
    return ReplayBuffer(path, root, {"env": "", "source": path.name, "licence": ""}, ends, keys)


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
        with _group(self.path, self.root) as group:
            arrays = {name: _array(group, f"data/{name}") for name in self.keys}
            for end in map(int, self.ends[start:]):
                yield Recorded(
                    {self.keys[name]: _rows(value[begin:end], self.keys[name]) for name, value in arrays.items()}
                )
                begin = end


def _metadata(path: Path) -> tuple[dict[str, Any], str]:
    """All `.zarray` files by the name of their array, and the folder inside the archive that they share."""
    try:
        if path.is_dir():
            files = {str(file.relative_to(path)): file.read_text() for file in path.rglob(".zarray")}
            root = ""
        else:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in members(path) if name.endswith(".zarray")]
                files = {name: archive.read(name).decode() for name in names}
            root = min((name for name in names if name.endswith("meta/episode_ends/.zarray")), key=len)
            root = root.removesuffix("meta/episode_ends/.zarray")
        return {name.removesuffix("/.zarray"): json.loads(text) for name, text in files.items()}, root
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} has damaged metadata: {error}") from error


def _refuse_unsafe(name: str, header: Any) -> None:
    try:
        codecs = [*(header.get("filters") or []), *([header["compressor"]] if header.get("compressor") else [])]
        ids = [codec["id"] for codec in codecs]
        dtype = np.dtype(header["dtype"])
        chunk = int(np.prod(header["chunks"], dtype=object)) * dtype.itemsize
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"'{name}' has damaged metadata: {error!r}") from error
    if dtype.kind not in "fiub":
        what = "objects, which may be pickled and are never read" if dtype.hasobject else f"type {dtype}, not numbers"
        raise UserError(f"'{name}' holds {what}")
    if unknown := [codec for codec in ids if codec not in CODECS]:
        raise UserError(f"'{name}' is packed by '{unknown[0]}': only {', '.join(CODECS)} are unpacked")
    if chunk > CHUNK_BYTES:
        raise UserError(f"'{name}' has chunks of {chunk:,} bytes: at most {CHUNK_BYTES:,} are unpacked")


@contextmanager
def _group(path: Path, root: str) -> Iterator[zarr.Group]:
    from zarr.storage import LocalStore, ZipStore

    store = LocalStore(path, read_only=True) if path.is_dir() else ZipStore(path, mode="r")
    try:
        yield zarr.open_group(store, path=root.rstrip("/"), mode="r", zarr_format=2)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:  # what zarr and its codecs raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read (damaged or cut off?): {reason}") from error
    finally:
        store.close()


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
