"""What the folder `meta` of a LeRobot dataset says: features, rate, tasks, and where its files lie.

`info.json` of versions v2.0, v2.1 and v3.0, as written by https://github.com/huggingface/lerobot. Paths come from
templates in that file; whatever they say, they stay inside the dataset's folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import UserError
from ..spec import ArraySpec
from .validity import OBS

VERSIONS = ("v2.0", "v2.1", "v3.0")
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
OURS = "meta/noisepilot.json"
"""attributes of the set that LeRobot has no place for; it ignores the file"""
LONGEST = 1e9
"""seconds within which times are believed"""
_FIELD = re.compile(r"\{(\w+)(?::0?(\d?)d)?\}")


@dataclass(frozen=True)
class Feature:
    """One key of the dataset, as `info.json` declares it."""

    key: str
    dtype: str
    """a numpy type, `image` (a picture in the table) or `video`"""
    shape: tuple[int, ...]
    """of one step; pictures: height, width and channels in either order"""
    names: tuple[str, ...] = ()

    @property
    def pictures(self) -> bool:
        """Its values are pictures, uint8 (H, W, 3)."""
        return self.dtype in ("image", "video")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of pictures."""
        return self.shape[:2] if self.shape[2] == 3 else self.shape[1:]  # type: ignore[return-value]

    def spec(self) -> ArraySpec:
        """As the rest of the package describes an array."""
        if self.pictures:
            return ArraySpec((*self.size, 3))
        return ArraySpec(self.shape, self.names)


@dataclass(frozen=True)
class Info:
    """`info.json`, checked."""

    root: Path
    version: str
    fps: float
    features: Mapping[str, Feature]
    """those that are read: observations, actions, outcomes"""
    left_out: tuple[str, ...]
    """text, depth maps and what has no place in `Episodes`"""
    raw: Mapping[str, Any]

    def path(self, template: str, **values: Any) -> Path:
        """The file that a template of `info.json` names.

        Raises:
            UserError: where the template is missing, unknown, or leads out of the folder.
        """
        text = self.raw.get(template)
        if not isinstance(text, str):
            raise UserError(f"{self.root / 'meta/info.json'} has no '{template}': it says where files lie")
        return inside(self.root, fill(text, values, f"{self.root}: {template}"))


def read_info(root: Path) -> Info:
    """Read and check `meta/info.json`.

    Raises:
        UserError: for a missing or wrong entry, or a version that is not known.
    """
    path = root / "meta/info.json"
    raw = read_json(path)
    for key, kind in (("codebase_version", str), ("fps", (int, float)), ("features", dict)):
        if not isinstance(raw.get(key), kind):
            raise UserError(f"{path} has no '{key}': it is no info.json of LeRobot, or damaged")
    if raw["codebase_version"] not in VERSIONS:
        raise UserError(
            f"{path} is of version {raw['codebase_version']}: only {', '.join(VERSIONS)} can be read; "
            "convert it with lerobot, or upgrade noisepilot"
        )
    if not 0 < raw["fps"] < float("inf"):
        raise UserError(f"{path} has fps {raw['fps']}: it must be positive")
    features = {key: _feature(path, key, entry) for key, entry in raw["features"].items() if _kept(key, entry)}
    if "action" not in features:
        raise UserError(f"{path} has no feature 'action': it has {', '.join(raw['features']) or 'none'}")
    told = {"next.done"} if {"next.terminated", "next.truncated"} <= features.keys() else set()
    left_out = sorted(set(raw["features"]) - set(features) - set(BOOKKEEPING) - told)
    return Info(root, raw["codebase_version"], float(raw["fps"]), features, tuple(left_out), raw)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: where the file is missing, damaged, or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return value


def fill(template: str, values: Mapping[str, Any], name: str) -> str:
    """A path template with its `{key}` and `{key:03d}` filled in; nothing else of Python's format is known.

    Raises:
        UserError: for any other use of braces, or a key that has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UserError(f"{name} '{template}' has an unknown field '{match[1]}': known: {', '.join(values)}")
        text = str(values[match[1]])
        return text.zfill(int(match[2])) if match[2] else text

    if re.search(r"[{}]", _FIELD.sub("", template)):
        raise UserError(f"{name} '{template}' is no path template: write fields as {{episode_index:06d}}")
    return _FIELD.sub(value, template)


def inside(root: Path, relative: str) -> Path:
    """A file below `root`, by its relative path.

    Raises:
        UserError: where it would lie outside.
    """
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts or "\\" in relative or "\0" in relative:
        raise UserError(f"{root}: its meta/info.json names '{relative}', outside the dataset: do not trust this set")
    return root / parts


def _kept(key: str, entry: Any) -> bool:
    if key in BOOKKEEPING or not isinstance(entry, dict) or entry.get("dtype") in ("string", "language"):
        return False
    facts = {**(entry.get("video_info") or {}), **(entry.get("info") or {})}
    if facts.get("is_depth_map") or facts.get("video.is_depth_map"):
        return False
    if key.startswith("next."):  # `done` does not tell an end of the task from a time limit
        return key != "next.done" and entry.get("shape") in ([1], [])
    return key == "action" or key.startswith(OBS)


def _feature(path: Path, key: str, entry: dict[str, Any]) -> Feature:
    shape, dtype = entry.get("shape"), entry.get("dtype")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UserError(f"{path}: feature '{key}' has shape {shape}: it must be a list of positive numbers")
    feature = Feature(key, str(dtype), tuple(shape), _names(entry.get("names"), shape))
    if feature.pictures:
        if len(shape) != 3 or 3 not in (shape[0], shape[2]):
            raise UserError(f"{path}: feature '{key}' has shape {shape}: pictures need height, width and 3 channels")
    elif not _is_number(feature.dtype):
        raise UserError(f"{path}: feature '{key}' has dtype {dtype!r}: it must be a number type, image or video")
    return feature


def _is_number(name: str) -> bool:
    try:
        return np.dtype(name).kind in "fiub"
    except TypeError:
        return False


def _names(names: Any, shape: list[int]) -> tuple[str, ...]:
    # A list, or lists by group: {"motors": [...]}.
    if isinstance(names, dict):
        names = [name for group in names.values() if isinstance(group, list) for name in group]
    if not isinstance(names, list) or len(shape) != 1 or len(names) != shape[0]:
        return ()
    return tuple(map(str, names))
