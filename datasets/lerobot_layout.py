"""Where each episode of a LeRobot dataset lies: in which table, and where in which video.

v2.x: one parquet and one mp4 per episode, `meta/episodes.jsonl`, `meta/tasks.jsonl`.
v3.0: files of many episodes; `meta/episodes/chunk-XXX/file-XXX.parquet` says from which time on a video shows an
episode, `meta/tasks.parquet` names the tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .lerobot_info import LONGEST, Info
from .lerobot_table import read_table


@dataclass(frozen=True)
class Clip:
    """An episode's part of a video."""

    path: Path
    start: float
    """seconds from the video's first frame to the episode's"""


@dataclass(frozen=True)
class Entry:
    """One episode: what the folder says of it."""

    index: int
    length: int
    table: Path
    clips: Mapping[str, Clip]


def read_entries(info: Info) -> list[Entry]:
    """All episodes in their order.

    Raises:
        UserError: for missing or damaged metadata.
    """
    entries = sorted(_v3(info) if info.version.startswith("v3") else _v2(info), key=lambda entry: entry.index)
    if not entries:
        raise UserError(f"{info.root} holds no episodes")
    if len({entry.index for entry in entries}) < len(entries):
        raise UserError(f"{info.root}/meta/episodes is damaged: an episode is listed twice")
    return entries


def read_tasks(info: Info) -> list[str]:
    """Instructions by their `task_index`; empty where none are recorded.

    Raises:
        UserError: for a damaged file.
    """
    rows: Sequence[Mapping[str, Any]]
    if info.version.startswith("v3"):
        path = info.root / "meta/tasks.parquet"
        rows = read_table(path) if path.is_file() else []
    else:
        path = info.root / "meta/tasks.jsonl"
        rows = list(_lines(path)) if path.is_file() else []
    texts = {}
    for row in rows:
        text = row.get("task", row.get("__index_level_0__"))  # the index of a pandas table, with or without a name
        if not isinstance(row.get("task_index"), int) or not isinstance(text, str):
            raise UserError(f"{path} is damaged: it must hold 'task_index' and 'task'")
        texts[row["task_index"]] = text
    if sorted(texts) != list(range(len(texts))):
        raise UserError(f"{path} is damaged: its task_index do not count from 0")
    return [texts[i] for i in range(len(texts))]


def _v2(info: Info) -> Iterator[Entry]:
    path = info.root / "meta/episodes.jsonl"
    size = info.raw.get("chunks_size", 1000)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{info.root}/meta/info.json has chunks_size {size}: it must be at least 1")
    for row in _lines(path):
        index, length = _number(path, row, "episode_index"), _number(path, row, "length")
        place = {"episode_chunk": index // size, "episode_index": index}
        clips = {key: Clip(info.path("video_path", video_key=key, **place), 0.0) for key in _videos(info)}
        yield Entry(index, length, info.path("data_path", **place), clips)


def _v3(info: Info) -> Iterator[Entry]:
    files = sorted((info.root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise UserError(f"{info.root}/meta/episodes is missing: restore it")
    for path in files:
        for row in read_table(path, lambda name: not name.startswith("stats/")):
            clips = {key: _clip(info, path, row, key) for key in _videos(info)}
            table = info.path("data_path", **_place(path, row, "data"))
            yield Entry(_number(path, row, "episode_index"), _number(path, row, "length"), table, clips)


def _clip(info: Info, path: Path, row: Mapping[str, Any], key: str) -> Clip:
    start = row.get(f"videos/{key}/from_timestamp")
    if not isinstance(start, float) or not 0 <= start < LONGEST:
        raise UserError(f"{path} has no 'videos/{key}/from_timestamp' for episode {row.get('episode_index')}")
    return Clip(info.path("video_path", video_key=key, **_place(path, row, f"videos/{key}")), start)


def _place(path: Path, row: Mapping[str, Any], what: str) -> dict[str, int]:
    return {name: _number(path, row, name, f"{what}/{name}") for name in ("chunk_index", "file_index")}


def _number(path: Path, row: Mapping[str, Any], name: str, column: str = "") -> int:
    value = row.get(column or name)
    if not isinstance(value, int) or value < 0:
        raise UserError(f"{path} has no '{column or name}': restore it")
    return value


def _videos(info: Info) -> list[str]:
    return [key for key, feature in info.features.items() if feature.dtype == "video"]


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing: restore it")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path} is damaged in line {number}")
            yield row
