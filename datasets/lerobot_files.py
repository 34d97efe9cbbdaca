"""The numbered files of a LeRobot dataset that is being written: a table and one video per camera, which grow.

Files are numbered `chunk-XXX/file-XXX`; an episode begins a new one where the last has become large.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .lerobot_table import arrow
from .video_writer import VideoWriter

DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES = 1000
DATA_MB, VIDEO_MB = 100, 200
"""size from which on the next episode begins a new file"""


class Tables:
    """The rows of all episodes, each a row group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, -1
        self.path = folder
        self._file: Any = None

    def append(self, table: Any) -> dict[str, int]:
        """Write an episode's rows; says in which file, as `meta/episodes` does."""
        if self._file is None or self.path.stat().st_size >= DATA_MB * 2**20:
            self.close()
            self.number += 1
            self.path = self.folder / DATA.format(**place(self.number))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = arrow().parquet.ParquetWriter(self.path, table.schema)
        self._file.write_table(table)
        return {f"data/{name}": x for name, x in place(self.number).items()}

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Films:
    """One camera's frames of all episodes."""

    def __init__(self, folder: Path, key: str, fps: Fraction, codec: str) -> None:
        self.folder, self.key, self.fps, self.codec = folder, key, fps, codec
        self.number = -1
        self._file: VideoWriter | None = None

    def append(self, frames: np.ndarray) -> dict[str, Any]:
        """Write an episode's frames (L, H, W, 3); says where and from when on, as `meta/episodes` does."""
        if self._file is None or self._file.path.stat().st_size >= VIDEO_MB * 2**20:
            self.close()
            self.number += 1
            path = self.folder / VIDEO.format(video_key=self.key, **place(self.number))
            self._file = VideoWriter(path, self.fps, self.codec, frames.shape[1:3])
        first = self._file.count
        self._file.write(frames)
        # From whole frames: sums of durations drift away from the frames' own times.
        spans = {"from_timestamp": float(first / self.fps), "to_timestamp": float(self._file.count / self.fps)}
        return {f"videos/{self.key}/{name}": x for name, x in {**place(self.number), **spans}.items()}

    def facts(self) -> Mapping[str, Any]:
        """What `info.json` says of the camera."""
        return self._file.facts() if self._file else {}

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def place(number: int) -> dict[str, int]:
    """Chunk and file of the files' running number."""
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}
