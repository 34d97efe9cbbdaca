"""LeRobot datasets, v2.0, v2.1 and v3.0: parquet tables and mp4 videos, read without the package lerobot.

https://github.com/huggingface/lerobot. Feature names are ours already. Left out, and listed in the attribute
`left_out`: text, depth maps, and `next.done`, which does not tell an end of the task from a time limit. The
attribute `tasks` holds the instructions; where there is more than one, `task_index` says which one a step is of.
What followed an episode's last action is not part of the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_dict
from ..errors import UserError
from .episodes import recorded_specs
from .lerobot_info import LONGEST, OURS, Feature, Info, read_info, read_json
from .lerobot_layout import Clip, Entry, read_entries, read_tasks
from .lerobot_table import arrow, episode_tables, values
from .source import Recorded
from .timing import TOLERANCE
from .video import VideoReader

TIME = Feature("timestamp", "float32", (1,))
TASK = Feature("task_index", "int64", (1,))


def recognises(path: Path) -> bool:
    """A folder with `meta/info.json`."""
    return (path / "meta" / "info.json").is_file()


def open_source(path: Path) -> LeRobotSource:
    """Read what the folder says of itself.

    Raises:
        UserError: for missing or damaged metadata, an unknown version, or missing packages.
    """
    arrow()
    info = read_info(path)
    source = LeRobotSource(info, tuple(read_entries(info)), tuple(read_tasks(info)))
    _ = source.attrs  # damaged ones show here
    return source


@dataclass(frozen=True)
class LeRobotSource:
    """A dataset, opened; memory holds one episode at a time."""

    info: Info
    entries: tuple[Entry, ...]
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def attrs(self) -> Mapping[str, Any]:
        """As recorded by noisepilot where it wrote the set; else from `info.json`."""
        info, ours = self.info, self.info.root / OURS
        specs = {key: feature.spec() for key, feature in info.features.items() if not key.startswith("next.")}
        robot = {"robot": info.raw.get("robot_type") or ""}
        known: dict[str, Any] = read_json(ours) if ours.is_file() else robot
        return {
            "env": "",
            "source": info.root.name,
            "licence": "",
            **known,
            "specs": to_dict({**specs, **recorded_specs(known)}),
            "fps": info.fps,
            "tasks": list(self.tasks),
            **({"left_out": list(info.left_out)} if info.left_out else {}),
        }

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Episodes from number `start` on; a video that several share is decoded once, from front to back.

        Raises:
            UserError: for missing, damaged or unequal tables and videos.
        """
        with _Videos() as videos:
            for path, group in groupby(self.entries[start:], key=lambda entry: entry.table):
                yield from self._of_table(path, list(group), videos)

    def _of_table(self, path: Path, wanted: list[Entry], videos: _Videos) -> Iterator[Recorded]:
        tables = episode_tables(path, self._columns, wanted[0].index)
        for entry in wanted:
            index, table = next(tables, (None, None))
            while index is not None and index < entry.index:  # rows that no metadata names
                index, table = next(tables, (None, None))
            if table is None or index != entry.index:
                raise UserError(f"{path} has no rows of episode {entry.index}: restore it")
            yield Recorded(self._episode(entry, table, videos))

    @property
    def _columns(self) -> list[str]:
        stored = [key for key, feature in self.info.features.items() if feature.dtype != "video"]
        return [*stored, "timestamp", *(["task_index"] if len(self.tasks) > 1 else [])]

    def _episode(self, entry: Entry, table: Any, videos: _Videos) -> dict[str, np.ndarray]:
        where = f"{entry.table}: episode {entry.index}"
        if len(table) != entry.length:
            raise UserError(f"{where} has {len(table)} rows but {entry.length} in meta/episodes: copy the set anew")
        data = {}
        times = values(table, TIME, where)[:, 0].astype(np.float64)
        _require_rate(times, self.info.fps, where)
        for key, feature in self.info.features.items():
            if feature.dtype == "video":
                data[key] = videos.read(key, entry.clips[key], times, self.info, feature)
            else:
                value = values(table, feature, where)
                data[key] = value.reshape(len(value)) if key.startswith("next.") else value
        if len(self.tasks) > 1:
            data["task_index"] = values(table, TASK, where)[:, 0]
        return data


def _require_rate(times: np.ndarray, fps: float, where: str) -> None:
    """Refuse times (L,) that no camera has, that do not increase, or mostly lie another period apart than claimed."""
    if not (np.abs(times) < LONGEST).all():
        raise UserError(f"{where} has times that are no seconds of a recording: restore 'timestamp'")
    steps = np.diff(times)
    if stuck := int((steps <= 0).sum()):
        row = int(np.argmax(steps <= 0)) + 1
        raise UserError(
            f"{where} has times that do not increase at {stuck} rows, first in row {row}: sort or drop them"
        )
    period = float(np.median(steps)) if len(steps) else 1 / fps
    if abs(period * fps - 1) > TOLERANCE:
        raise UserError(f"{where} has rows {period:.4g} s apart, but meta/info.json claims fps {fps:g}: correct it")


class _Videos(ExitStack):
    """The video of each camera that is being read; the next episode mostly continues in the same file."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, VideoReader] = {}
        self.callback(self._close)

    def read(self, key: str, clip: Clip, times: np.ndarray, info: Info, feature: Feature) -> np.ndarray:
        """Frames (L, H, W, 3) of one camera at `times` (L,) of an episode."""
        reader = self._open.get(key)
        if reader is None or reader.path != clip.path:
            if reader is not None:
                reader.close()
            reader = self._open[key] = VideoReader(clip.path)
        frames = reader.read(clip.start + times, tolerance=0.5 / info.fps)
        if frames.shape[1:3] != feature.size:
            raise UserError(f"{clip.path} shows {frames.shape[1:3]} pixels but {feature.size} in meta/info.json")
        return frames

    def _close(self) -> None:
        for reader in self._open.values():
            reader.close()
