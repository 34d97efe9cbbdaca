"""Zarr v2 from strangers, a folder or a .zip, looked through before zarr opens an array.

Accepted are numbers in codecs that only unpack them, in chunks that are whole and in proportion to what they claim.
Consolidated metadata may say something else than what was looked through, and is not used.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr

from ..errors import UserError
from .archive import members, refuse_bomb

CODECS = ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "crc32")
CHUNK_BYTES = 2**31
"""largest chunk that is unpacked, which Blosc has for a limit too"""
_HEADER = ".zarray"
_BLOSC_HEADER = 16


@dataclass(frozen=True)
class Chunk:
    """A chunk's file."""

    size: int
    open: Callable[[], IO[bytes]]


def look_through(path: Path) -> dict[str, int]:
    """Name of every array -> how many of its chunks have no file, which zarr reads as its fill value.

    Raises:
        UserError: for damaged metadata, pickled objects, unknown codecs, chunks that are cut off, or a bomb.
    """
    try:
        with _files(path) as files:
            headers = {
                name.removesuffix(f"/{_HEADER}"): json.loads(_content(file))
                for name, file in files.items()
                if name.endswith(f"/{_HEADER}")
            }
            chunks: dict[str, dict[str, Chunk]] = {name: {} for name in headers}
            for name, file in files.items():
                array = next((above for above in _above(name) if above in headers), None)
                if array and not name.rpartition("/")[2].startswith("."):
                    chunks[array][name] = file
            return {name: _absent(name, header, chunks[name]) for name, header in headers.items()}
    except (ValueError, RecursionError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} has damaged metadata: {error}") from error


@contextmanager
def opened(path: Path, root: str) -> Iterator[zarr.Group]:
    """The group at `root` inside a folder or an archive that was looked through.

    Raises:
        UserError: for damage, also where it shows inside the block.
    """
    from zarr.storage import LocalStore, ZipStore

    store = LocalStore(path, read_only=True) if path.is_dir() else ZipStore(path, mode="r")
    try:
        yield zarr.open_group(store, path=root.rstrip("/"), mode="r", zarr_format=2, use_consolidated=False)
    except (  # what zarr, its codecs and archives raise
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read (damaged or cut off?): {reason}") from error
    finally:
        store.close()


@contextmanager
def _files(path: Path) -> Iterator[Mapping[str, Chunk]]:
    if not path.is_dir():
        with zipfile.ZipFile(path) as archive:
            listed = members(path)
            yield {name: Chunk(info.file_size, partial(archive.open, info)) for name, info in listed.items()}
        return
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
    if links := [name for name, file in found.items() if file.is_symlink() and file.is_dir()]:
        raise UserError(f"'{links[0]}' is a link to a folder: put the folder itself there")
    yield {name: Chunk(file.stat().st_size, partial(file.open, "rb")) for name, file in found.items() if file.is_file()}


def _absent(name: str, header: Any, chunks: Mapping[str, Chunk]) -> int:
    """Chunks without a file, of an array that is safe to open."""
    try:
        filters, compressor = header.get("filters") or [], header.get("compressor") or {}
        ids = [codec["id"] for codec in [*filters, *([compressor] if compressor else [])]]
        dtype = np.dtype(header["dtype"])
        shape, grid = (tuple(map(int, header[key])) for key in ("shape", "chunks"))
        wanted = math.prod(-(-rows // step) for rows, step in zip(shape, grid, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"'{name}' has damaged metadata: {error!r}") from error
    if dtype.kind not in "fiub":
        what = "objects, which may be pickled and are never read" if dtype.hasobject else f"type {dtype}, not numbers"
        raise UserError(f"'{name}' holds {what}")
    if unknown := [codec for codec in ids if codec not in CODECS]:
        raise UserError(f"'{name}' is packed by '{unknown[0]}': only {', '.join(CODECS)} are unpacked")
    if (chunk := math.prod(grid) * dtype.itemsize) > CHUNK_BYTES:
        raise UserError(f"'{name}' has chunks of {chunk:,} bytes: at most {CHUNK_BYTES:,} are unpacked")
    refuse_bomb(f"'{name}'", sum(file.size for file in chunks.values()), math.prod(shape) * dtype.itemsize)
    if "blosc" in ids[: len(filters)]:
        raise UserError(f"'{name}' has Blosc among its filters: only its compressor may be")
    if compressor.get("id") == "blosc":
        _refuse_torn(chunks)
    return max(0, wanted - len(chunks))


def _refuse_torn(chunks: Mapping[str, Chunk]) -> None:
    """Blosc believes the size in a chunk's header, and reads behind the end of one that is cut off."""
    for name, file in chunks.items():
        with file.open() as stream:
            header = stream.read(_BLOSC_HEADER)
        if int.from_bytes(header[12:], "little") != file.size:
            raise UserError(f"'{name}' is cut off: it cannot be read; copy it again")


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _content(file: Chunk) -> bytes:
    with file.open() as stream:
        return stream.read()
