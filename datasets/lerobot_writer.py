"""Writing a set as a LeRobot dataset of version v3.0, which `lerobot` opens: parquet tables, mp4 videos, `meta`.

https://github.com/huggingface/lerobot. Cameras, (L, H, W, 3) uint8, become videos; everything else columns. The
folder appears whole, once everything is written. What followed an episode's last action has no place in the
format and is not written; `next.done` joins `next.terminated` and `next.truncated`, which stay beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, unknown
from ..files import atomic_folder
from .lerobot_columns import declare, table_of
from .lerobot_files import CHUNK_FILES, DATA, DATA_MB, VIDEO, VIDEO_MB, Films, Tables
from .lerobot_info import OURS
from .lerobot_stats import Stats, merged, of_array, of_pictures
from .lerobot_table import arrow
from .readers import naming
from .source import Recorded, Source, require_alike, require_whole
from .video_writer import CODECS


def write(
    path: str | Path,
    source: Source,
    *,
    codec: str = "h264",
    task: str = "",
    fps: float = 0.0,
    progress: Callable[[int], None] = lambda episodes: None,
) -> int:
    """Write a set, whole or not at all; memory holds one episode at a time.

    Args:
        path: folder to write.
        source: whose episodes to write.
        codec: of the videos, a name of `CODECS`.
        task: instruction for every episode of a set that has none; empty: the environment's id.
        fps: rate of a set that names none.
        progress: called with the number of episodes written.

    Returns:
        Steps written.

    Raises:
        UserError: where `path` exists, the rate is unknown, a key has no place in the format, or a package is missing.
    """
    if codec not in CODECS:
        raise unknown("codec", codec, CODECS)
    arrow()
    with atomic_folder(path) as folder:
        writer, first = _Writer(folder, source.attrs, codec, task, fps), None
        try:
            for index, recorded in enumerate(source.episodes()):
                first = first or recorded
                require_alike(first, recorded, index)
                require_whole(recorded, index)
                writer.append(recorded)
                progress(index + 1)
        except UserError as error:
            raise naming(str(source.attrs.get("source") or "the set"), error) from None
        finally:
            writer.close()
        if first is None:
            raise UserError("the dataset holds no episodes")
        writer.write_meta()
    return writer.steps


class _Writer:
    """The files that grow, and what `meta` will say of them."""

    def __init__(self, folder: Path, attrs: Mapping[str, Any], codec: str, task: str, fps: float) -> None:
        self.folder, self.attrs, self.codec = folder, attrs, codec
        self.fps = _rate(attrs, fps)
        self.tasks: list[str] = list(attrs.get("tasks") or [task or str(attrs.get("env") or "")])
        self.features: dict[str, dict[str, Any]] = {}
        self.tables, self.films = Tables(folder), dict[str, Films]()
        self.rows: list[dict[str, Any]] = []
        self.stats: dict[str, Stats] = {}
        self.steps = 0

    def append(self, recorded: Recorded) -> None:
        """Write one episode behind the others."""
        if not self.features:
            self.features = declare(recorded.data, self.attrs)
            cameras = [key for key, feature in self.features.items() if feature["dtype"] == "video"]
            self.films = {key: Films(self.folder, key, self.fps, self.codec) for key in cameras}
        data, index = self._completed(recorded.data), len(self.rows)
        steps = len(data["action"])
        stats = {key: of_pictures(data[key]) if key in self.films else of_array(data[key]) for key in self.features}
        row = {
            "episode_index": index,
            "tasks": [self.tasks[i] for i in np.unique(data["task_index"])],
            "length": steps,
            **self.tables.append(table_of(data, self.features)),
            "dataset_from_index": self.steps,
            "dataset_to_index": self.steps + steps,
        }
        for key, film in self.films.items():
            row |= film.append(data[key])
            self.features[key].setdefault("info", {"video.fps": _plain(self.fps), **film.facts()})
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        row |= {f"stats/{key}/{name}": x.tolist() for key, one in stats.items() for name, x in one.items()}
        self.rows.append(row)
        self.stats = {key: merged(self.stats.get(key), one) for key, one in stats.items()}
        self.steps += steps

    def close(self) -> None:
        """End the files that grow."""
        self.tables.close()
        for film in self.films.values():
            film.close()

    def write_meta(self) -> None:
        """Everything in `meta`."""
        pa, meta = arrow(), self.folder / "meta"
        episodes = meta / "episodes/chunk-000/file-000.parquet"
        episodes.parent.mkdir(parents=True)
        pa.parquet.write_table(pa.Table.from_pylist(self.rows), episodes)
        pa.parquet.write_table(_tasks_table(self.tasks), meta / "tasks.parquet")
        stats = {key: {name: x.tolist() for name, x in one.items()} for key, one in self.stats.items()}
        elsewhere = ("fps", "tasks", "left_out")
        ours = {key: value for key, value in self.attrs.items() if key not in elsewhere}
        for name, value in (("info.json", self._info()), ("stats.json", stats), (Path(OURS).name, ours)):
            (meta / name).write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")

    def _completed(self, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """An episode's arrays and LeRobot's bookkeeping of them."""
        data, index, steps = dict(recorded), len(self.rows), len(recorded["action"])
        if "next.done" in self.features:
            data["next.done"] = data["next.terminated"].astype(bool) | data["next.truncated"].astype(bool)
        frame = np.arange(steps, dtype=np.int64)
        data["timestamp"] = (frame / float(self.fps)).astype(np.float32)
        data["frame_index"], data["index"] = frame, self.steps + frame
        data["episode_index"] = np.full(steps, index, np.int64)
        task = data.setdefault("task_index", np.zeros(steps, np.int64))
        if task.min() < 0 or task.max() >= len(self.tasks):
            raise UserError(f"episode {index}: 'task_index' {task.max()} has no text in the attribute 'tasks'")
        return data

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": self.attrs.get("robot") or self.attrs.get("env") or None,
            "total_episodes": len(self.rows),
            "total_frames": self.steps,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": _plain(self.fps),
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA,
            "video_path": VIDEO if self.films else None,
            "features": self.features,
        }


def _rate(attrs: Mapping[str, Any], given: float) -> Fraction:
    fps = attrs.get("fps") or given
    if not isinstance(fps, (int, float)) or not 0 < fps < float("inf"):
        name = attrs.get("source") or "the set"
        raise UserError(f"{name} names no rate, which LeRobot needs: give its steps per second (fps)")
    return Fraction(fps).limit_denominator(1000)


def _tasks_table(tasks: list[str]) -> Any:
    """Texts as the index of a pandas table: LeRobot looks tasks up by row and reads the index."""
    pa = arrow()
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in kinds
        ],
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _plain(fps: Fraction) -> int | float:
    return int(fps) if fps.denominator == 1 else float(fps)
