"""A replay larger than memory: the same ring as `Replay`, in a zarr folder.

Rows are numbered from the first one ever added and never written twice, so a run that is killed continues from its
last `tree` as if nothing had followed. Every array is a run of uncompressed chunks, each a file that is mapped into
memory: drawing a row reads that row. Chunks that have left the ring are deleted once two `tree`s have passed, for a
checkpoint may be lost while it is written. The arrays begin with what is left of them; deleted chunks read as zeros.
Shapes: B transitions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor

from ..errors import UserError
from ..files import naming
from .replay import Experience, columns, draw, from_columns, require_same, stored

CHUNK_BYTES = 2**24
KIND = "noisepilot replay"


class DiskReplay:
    """A ring of the newest `capacity` transitions in `folder`; samples lie on `device`.

    What a folder holds counts only after `load`.

    Raises:
        UserError: where `folder` is something else.
    """

    def __init__(self, folder: str | Path, capacity: int, device: torch.device | str = "cpu") -> None:
        if capacity < 1:
            raise UserError(f"a replay of {capacity} transitions holds nothing: give it room for at least 1")
        self.folder, self.capacity, self.device = Path(folder), capacity, torch.device(device)
        self.total = 0
        self._safe = 0  # `total` of the checkpoint before the newest
        self._newest = 0
        self._files: dict[str, _Rows] = {}
        if self.folder.exists() and any(self.folder.iterdir()) and self._attrs().get("kind") != KIND:
            raise UserError(f"{folder} holds something that is no replay: choose another folder")

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(self, experience: Experience) -> None:
        """Append B transitions.

        Raises:
            UserError: for tensors that do not fit the earlier ones, a full disk, or a folder with another run's replay.
        """
        new = stored(columns(experience))
        with naming(self.folder):
            if not self._files:
                self._create(new)
            require_same(new, {name: rows.like for name, rows in self._files.items()})
            for name, value in new.items():
                self._files[name].write(self.total, value.cpu().numpy())
        self.total += len(experience)

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Experience:
        """`batch` transitions, drawn uniformly with replacement, the very ones that a `Replay` draws."""
        slots = draw(len(self), batch, generator, self.device).cpu().numpy()
        # The newest row that a ring would keep in each slot.
        rows = self.total - 1 - (self.total - 1 - slots) % self.capacity
        return from_columns(
            {name: torch.from_numpy(file.read(rows)).to(self.device) for name, file in self._files.items()}
        )

    def tree(self) -> dict[str, Any]:
        """What `load` needs beside the folder; all rows are on the disk when this returns."""
        with naming(self.folder):
            for rows in self._files.values():
                rows.flush(self.total)
                rows.drop(self._safe - self.capacity)
            if self._files:
                zarr.open_group(self.folder, mode="r+").attrs["total"] = self.total
        self._safe, self._newest = self._newest, self.total
        return {"total": self.total, "capacity": self.capacity}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Continue from what `tree` returned.

        Raises:
            UserError: if it comes from another capacity, or rows are missing.
        """
        if tree["capacity"] != self.capacity:
            raise UserError(f"the replay in {self.folder} has capacity {tree['capacity']}: resume with the same one")
        self.total = self._safe = self._newest = tree["total"]
        if self.total == 0:
            return
        if self._attrs().get("total", 0) < self.total:
            raise UserError(f"{self.folder} lacks transitions of this run: restore it, or start the run anew")
        group = zarr.open_group(self.folder, mode="r+")
        names = sorted(name for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array))
        self._files = {name: _Rows(self.folder, name) for name in names}

    def _attrs(self) -> dict[str, Any]:
        if not (self.folder / "zarr.json").is_file():
            return {}
        return dict(zarr.open_group(self.folder, mode="r").attrs)

    def _create(self, like: Mapping[str, Tensor]) -> None:
        if self._attrs().get("total", 0):
            raise UserError(f"{self.folder} holds the replay of another run: resume that, or choose another folder")
        group = zarr.open_group(self.folder, mode="w", zarr_format=3, attributes={"kind": KIND, "total": 0})
        for name, value in like.items():
            array = value[:1].cpu().numpy()
            rows = max(1, CHUNK_BYTES // max(1, array.nbytes))
            group.create_array(
                name,
                shape=(0, *array.shape[1:]),
                chunks=(rows, *array.shape[1:]),
                dtype=array.dtype,
                compressors=None,
                filters=None,
            )
        self._files = {name: _Rows(self.folder, name) for name in like}


class _Rows:
    """The rows of one array: uncompressed chunks, mapped into memory as they are touched."""

    def __init__(self, folder: Path, name: str) -> None:
        self.array = zarr.open_array(folder / name, mode="r+")
        self.folder = folder.joinpath(name, "c")
        self.chunk_rows, self.tail = self.array.chunks[0], self.array.shape[1:]
        self.maps: dict[int, np.memmap] = {}
        self.dirty: set[int] = set()

    @property
    def like(self) -> Tensor:
        """An empty tensor of the rows' type and shape."""
        return torch.from_numpy(np.empty((0, *self.tail), self.array.dtype))

    def write(self, start: int, value: np.ndarray) -> None:
        """Put rows at `start`."""
        done = 0
        while done < len(value):
            chunk, offset = divmod(start + done, self.chunk_rows)
            part = value[done : done + self.chunk_rows - offset]
            self._map(chunk)[offset : offset + len(part)] = part
            self.dirty.add(chunk)
            done += len(part)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """A copy of rows."""
        chunk, offset = np.divmod(rows, self.chunk_rows)
        out = np.empty((len(rows), *self.tail), self.array.dtype)
        for c in np.unique(chunk):
            out[chunk == c] = self._map(int(c))[offset[chunk == c]]
        return out

    def flush(self, total: int) -> None:
        """Bring what was written to the disk, and let the array end after `total` rows."""
        for chunk in sorted(self.dirty):
            self.maps[chunk].flush()
        self.dirty.clear()
        self.array.resize((total, *self.tail))

    def drop(self, first: int) -> None:
        """Delete chunks whose rows all lie before `first`."""
        chunk = first // self.chunk_rows - 1
        while chunk >= 0 and self._path(chunk).exists():
            self.maps.pop(chunk, None)
            for path in (self._path(chunk), *self._path(chunk).parents[: len(self.tail)]):
                path.rmdir() if path.is_dir() else path.unlink()
            chunk -= 1

    def _path(self, chunk: int) -> Path:
        return self.folder.joinpath(str(chunk), *["0"] * len(self.tail))

    def _map(self, chunk: int) -> np.memmap:
        if chunk not in self.maps:
            path, shape = self._path(chunk), (self.chunk_rows, *self.tail)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as file:
                    # Claims the space now: a full disk shall raise here, not kill the process at some later write.
                    os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * self.array.dtype.itemsize)
            self.maps[chunk] = np.memmap(path, self.array.dtype, "r+", shape=shape)
        return self.maps[chunk]
