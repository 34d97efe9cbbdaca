"""Minari's datasets, read without minari: a folder with `data/metadata.json` beside HDF5, Arrow or Parquet.

https://minari.farama.org. An episode of L actions has L + 1 observations, nested in dictionaries and tuples as
the environment's are; the last one becomes `final`. Infos other than `success` are left out, and so are texts.
Images are JPEG inside unless the metadata says otherwise, and are decoded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_dict
from ..errors import UserError
from ..spec import ArraySpec
from .hdf5 import array, child, opened
from .names import observation_key, renamed
from .source import Recorded

METADATA = "metadata.json"
_KEPT = ("dataset_id", "algorithm_name", "author", "description", "code_permalink", "ref_min_score", "ref_max_score")


def recognises(path: Path) -> bool:
    """A dataset's folder, or the folder `data` inside it."""
    return path.is_dir() and any((folder / METADATA).is_file() for folder in (path / "data", path))


def open_source(path: Path) -> Minari:
    """Open a dataset.

    Raises:
        UserError: for metadata that is damaged or incomplete, actions that are no vector, or an absent package.
    """
    folder = path / "data" if (path / "data" / METADATA).is_file() else path
    try:
        metadata = json.loads((folder / METADATA).read_text())
        episodes, kind = int(metadata["total_episodes"]), metadata.get("data_format", "hdf5")
        env = dict(json.loads(metadata.get("env_spec") or "{}"))
        spaces = {name: dict(json.loads(metadata.get(f"{name}_space") or "{}")) for name in ("observation", "action")}
        action = spaces["action"]
        vector = action.get("type", "Box") == "Box" and len(action.get("shape", [0])) == 1
        specs = {"action": _spec(action)} if action and vector else {}
    except (ValueError, KeyError, TypeError, OSError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / METADATA} is not Minari's metadata: {error!r}") from error
    if not vector:
        kind = f"{action.get('type')} {action.get('shape', '')}".strip()
        raise UserError(f"{path} has actions {kind}, but a policy's action is a vector (Box of one axis)")
    if kind not in ("hdf5", "arrow", "parquet"):
        raise UserError(f"{path} stores '{kind}', but hdf5, arrow and parquet are known")
    if episodes < 1:
        raise UserError(f"{path} holds no episodes")
    facts = {key: metadata[key] for key in _KEPT if key in metadata}
    attrs = {"env": env.get("id", ""), "env_kwargs": env.get("kwargs") or {}, "licence": metadata.get("license", "")}
    attrs |= {"source": metadata.get("dataset_id", path.name), "specs": to_dict(specs), "minari": facts}
    return Minari(folder, attrs, kind, episodes, spaces["observation"])


@dataclass(frozen=True, eq=False)
class Minari:
    """A dataset's folder."""

    folder: Path
    attrs: Mapping[str, Any]
    kind: str
    """hdf5, arrow or parquet"""
    count: int
    space: Mapping[str, Any]
    """of observations, as the metadata has it"""

    def __len__(self) -> int:
        return self.count

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """One episode at a time."""
        if self.kind != "hdf5":
            yield from (self._arrow(i) for i in range(start, self.count))
            return
        with opened(self.folder / "main_data.hdf5") as file:
            for i in range(start, self.count):
                yield _from_hdf5(file, f"episode_{i}")

    def _arrow(self, index: int) -> Recorded:
        table = _table(self.folder / str(index), self.kind)
        try:
            obs = dict(_leaves(table["observations"], self.space, ""))
            steps = len(table["actions"]) - 1
            columns = {key: np.asarray(table[key])[:steps] for key in ("rewards", "terminations", "truncations")}
            actions = _values(table["actions"], {"type": "Box"})[:steps]
            infos = table.get("infos")
            success = None
            if infos is not None and infos.type.get_field_index("success") >= 0:
                success = _values(infos.field("success"), {})
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise UserError(f"episode {index} does not have Minari's columns: {error!r}") from error
        return _recorded(obs, actions, columns, success, f"episode {index}")


def _from_hdf5(file: Any, name: str) -> Recorded:
    group = child(file, name)
    if group is None:
        raise UserError(f"'{name}' is missing, which the metadata counts")
    observations = child(group, "observations")
    if observations is None:
        raise UserError(f"'{group.name}' has no 'observations': it has {', '.join(group)}")
    obs = dict(_datasets(observations, ""))
    columns = {key: array(group, key) for key in ("rewards", "terminations", "truncations")}
    success = array(group, "infos/success") if child(group, "infos/success") is not None else None
    return _recorded(obs, array(group, "actions"), columns, success, name)


def _recorded(
    obs: Mapping[str, np.ndarray],
    action: np.ndarray,
    columns: Mapping[str, np.ndarray],
    success: np.ndarray | None,
    name: str,
) -> Recorded:
    steps = len(action)
    data: dict[str, np.ndarray] = {}
    final: dict[str, np.ndarray] = {}
    named = renamed({key: _key(key, value) for key, value in obs.items()})
    for key, value in obs.items():
        if len(value) != steps + 1:
            raise UserError(
                f"{name}: '{key or 'observations'}' has {len(value)} rows but {steps} actions need one more"
            )
        data[named[key]], final[named[key]] = value[:-1], value[-1]
    data["action"] = action
    for ours, theirs in (("reward", "rewards"), ("terminated", "terminations"), ("truncated", "truncations")):
        data[f"next.{ours}"] = columns[theirs].reshape(-1)
    if success is not None and success.dtype.kind in "fiub" and success.size in (steps, steps + 1):
        data["next.success"] = success.reshape(-1)[-steps:].astype(np.float32)  # the first one is of the reset
    return Recorded(data, final)


def _key(name: str, value: np.ndarray) -> str:
    return observation_key(name or ("image" if value.ndim == 4 else "state"), value.shape[1:], value.dtype)


def _datasets(node: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name -> (L + 1, ...) of all observations below an HDF5 node."""
    import h5py

    if isinstance(node, h5py.Group):
        for name_there in map(str, node):
            below = child(node, name_there)
            key = name_there.removeprefix("_index_")
            yield from _datasets(below, f"{name}.{key}" if name else key)
    elif h5py.check_string_dtype(node.dtype):
        return
    elif h5py.check_vlen_dtype(node.dtype) == np.uint8:
        yield name, _decoded([bytes(content) for content in node[()]])
    else:
        value = array(node.parent, node.name.rpartition("/")[2])
        coded = value.dtype == np.uint8 and value.ndim == 2 and bytes(value[0, :3]) == b"\xff\xd8\xff"
        yield name, _decoded([content.tobytes() for content in value]) if coded else value


def _leaves(column: Any, space: Mapping[str, Any], name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name -> (L + 1, ...) of all observations below an Arrow column."""
    below = space.get("subspaces", {})
    if space.get("type") in ("Dict", "Tuple"):
        for key, inner in below.items() if isinstance(below, Mapping) else enumerate(below):
            yield from _leaves(column.field(str(key)), inner, f"{name}.{key}" if name else str(key))
    elif space.get("type") in ("Box", "Discrete", "MultiDiscrete", "MultiBinary"):
        yield name, _values(column, space)


def _values(column: Any, space: Mapping[str, Any]) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_binary(column.type):
        return _decoded(column.to_pylist())
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return flat.reshape(len(column), *space["shape"]) if "shape" in space else flat


def _table(folder: Path, kind: str) -> dict[str, Any]:
    try:
        import pyarrow as pa
        import pyarrow.dataset as ds
    except ImportError:
        raise UserError(f"reading {folder} needs pyarrow: pip install 'noisepilot[lerobot]'") from None
    try:
        stored = ds.dataset(folder, format=kind, ignore_prefixes=["_", ".", METADATA])
        batch = stored.to_table().combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{folder} is not readable (damaged or cut off?): {str(error).splitlines()[0]}") from error
    if not len(batch):
        raise UserError(f"{folder} holds no rows")
    return {name: batch[name].chunk(0) for name in batch.column_names}


def _decoded(images: list[bytes]) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("images in Minari's datasets need Pillow: pip install pillow") from None
    try:
        return np.stack([np.asarray(Image.open(io.BytesIO(content), formats=["JPEG"])) for content in images])
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"an image is not a readable JPEG, or another size than the first: {error}") from error


def _spec(space: Mapping[str, Any]) -> ArraySpec:
    low, high = (tuple(float(x) for x in space.get(name, ())) for name in ("low", "high"))
    bounded = len(low) == len(high) == space["shape"][0] and bool(np.isfinite([*low, *high]).all())
    return ArraySpec(tuple(space["shape"]), low=low if bounded else None, high=high if bounded else None)
