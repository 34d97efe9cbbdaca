"""A source written as a set of ours, one episode at a time, so that neither has to fit into memory.

While it grows, the set's attributes say that it is unfinished and how much there is to come: `load` refuses it,
and the same conversion continues it behind the last committed episode, whose values it compares first. At the end
everything is read back for the checksum in the file `sha256`, which equals `Episodes.hash`. E episodes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import UserError
from ..files import atomic_write, is_empty
from .readers import naming
from .source import Recorded, Source, require_alike, require_whole
from .writer import EpisodeWriter
from .zarr_layout import CHECKSUM, UNFINISHED, keys, open_group

BLOCK_BYTES = 2**22
"""read at a time for the checksum, and gathered before episodes are committed"""
COMMIT_S = 1.0
"""seconds of reading after which episodes are committed in any case"""


def convert(
    source: Source,
    path: str | Path,
    target: str | Path,
    progress: Callable[[int], None] = lambda done: None,
) -> str:
    """Write a source, or what is left of it; returns the checksum.

    Args:
        source: what to read.
        path: where it is from, for messages.
        target: folder to write or continue.
        progress: told how many episodes are done.

    Raises:
        UserError: where the source is damaged or unsound, and nothing is left then that this call has begun;
            where `target` is something else, or was begun from another source.
    """
    path, target = Path(path), Path(target)
    begun = target.exists() and not is_empty(target)
    marked = {**source.attrs, UNFINISHED: len(source)}
    if len(source) == 0:
        raise UserError(f"{path} holds no episodes")
    try:
        with _writer(target, marked) as writer:
            waiting = _Waiting(writer, progress)
            try:
                for episode in _remaining(source, path, writer):
                    waiting.add(episode)
            finally:
                waiting.commit()
        if len(writer) != len(source):
            raise UserError(f"{path} has {len(writer)} episodes but counts {len(source)}: it is damaged")
    except BaseException as error:
        # A kill leaves what can be continued; a source that cannot be read leaves nothing to continue.
        if isinstance(error, UserError) and not begun:
            shutil.rmtree(target, ignore_errors=True)
        raise
    return _finish(target)


def verify(path: str | Path) -> bool | None:
    """Whether a converted set is what was written; None where it has no checksum.

    Raises:
        UserError: where it is damaged.
    """
    file = Path(path) / CHECKSUM
    return checksum(Path(path)) == file.read_text().strip() if file.is_file() else None


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Key -> (T, ...) of a set on disk, unread."""
    group = open_group(Path(path))
    arrays: dict[str, Any] = {key: group[f"data/{key}"] for key in keys(group, "data")}
    return {key: array.shape for key, array in arrays.items()}


def checksum(path: Path) -> str:
    """SHA-256 as `Episodes.hash` has it, of a set on disk, read in blocks."""
    group = open_group(path)
    ends: Any = group["meta/episode_ends"]
    count = ends.shape[0]
    steps = int(ends[-1]) if count else 0
    names = {"episode_ends": ("meta/episode_ends", count)}
    names |= {key: (f"data/{key}", steps) for key in keys(group, "data")}
    names |= {f"final/{key}": (f"meta/final/{key}", count) for key in keys(group, "meta/final")}
    digest = hashlib.sha256()
    for key in sorted(names):
        name, rows = names[key]
        array: Any = group[name]
        digest.update(f"{key} {np.dtype(array.dtype).str} {(rows, *array.shape[1:])}\n".encode())
        for block in blocks(array, rows):
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _writer(target: Path, attrs: Mapping[str, Any]) -> EpisodeWriter:
    if (target / "zarr.json").is_file() and UNFINISHED not in open_group(target).attrs:
        raise UserError(f"{target} exists already: choose another path or remove it first")
    return EpisodeWriter(target, attrs)


class _Waiting:
    """Episodes that were read and are committed together: to wait for the disk takes longer than a short episode."""

    def __init__(self, writer: EpisodeWriter, progress: Callable[[int], None]) -> None:
        self.writer, self.progress = writer, progress
        self.episodes: list[Recorded] = []
        self.size, self.since = 0, time.monotonic()

    def add(self, episode: Recorded) -> None:
        """Take one more, and commit all if they are many or old."""
        self.episodes.append(episode)
        self.size += sum(value.nbytes for value in episode.data.values())
        if self.size >= BLOCK_BYTES or time.monotonic() - self.since > COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Bring what waits to the disk."""
        batch, self.episodes, self.size = self.episodes, [], 0
        if batch:
            self.writer.extend([(episode.data, episode.final) for episode in batch])
            self.progress(len(self.writer))
        self.since = time.monotonic()


def _remaining(source: Source, path: Path, writer: EpisodeWriter) -> Iterator[Recorded]:
    done = len(writer)
    first: Recorded | None = None
    try:
        for index, episode in enumerate(source.episodes(max(done - 1, 0)), max(done - 1, 0)):
            first = first or episode
            require_alike(first, episode, index)
            require_whole(episode, index)
            if index < done:
                _require_same(writer.path, episode)
            else:
                yield episode
    except UserError as error:
        raise naming(path, error) from None
    except MemoryError as error:
        raise UserError(f"{path}: an episode does not fit into memory: {error}") from None


def _require_same(target: Path, episode: Recorded) -> None:
    """The last episode committed is this one, or another source was begun here."""
    group = open_group(target)
    array: Any = group["meta/episode_ends"]
    ends = np.asarray(array[:])
    rows = slice(int(ends[-2]) if len(ends) > 1 else 0, int(ends[-1]))
    for key, value in episode.data.items():
        written: Any = group.get(f"data/{key}")
        if written is None or not np.array_equal(np.asarray(written[rows]), value):
            raise UserError(
                f"{target} was begun from another source ('{key}' differs): choose another path or remove it"
            )


def _finish(target: Path) -> str:
    digest = checksum(target)
    atomic_write(target / CHECKSUM, digest + "\n")
    meta = json.loads((target / "zarr.json").read_text())
    del meta["attributes"][UNFINISHED]
    atomic_write(target / "zarr.json", json.dumps(meta, indent=2))
    return digest


def blocks(array: zarr.Array | np.ndarray, count: int) -> Iterator[np.ndarray]:
    """The first `count` rows, some at a time."""
    rows = max(1, BLOCK_BYTES // max(1, int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize))
    chunk = array.chunks[0] if isinstance(array, zarr.Array) else 1
    rows = max(chunk, rows // chunk * chunk)
    for start in range(0, count, rows):
        yield np.asarray(array[start : min(start + rows, count)])
