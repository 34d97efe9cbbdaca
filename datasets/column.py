"""One zarr array that grows along its first axis by writing into its chunks' files, without compression.

An uncompressed chunk is its rows one after the other, so new rows never touch the bytes of old ones, which a
kill in the middle would damage.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import atomic_write, sync


class Column:
    """One array of a dataset on disk.

    Raises:
        UserError: where the array is compressed, as in a set written whole.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name
        self.meta = json.loads((self.folder / "zarr.json").read_text())
        if [codec["name"] for codec in self.meta["codecs"]] != ["bytes"]:
            raise UserError(f"{root} is a finished dataset: collect into a folder of its own")
        self.dtype = np.dtype(self.meta["data_type"])
        self.row_shape = tuple(self.meta["shape"][1:])
        self.chunk_rows = self.meta["chunk_grid"]["configuration"]["chunk_shape"][0]
        self.row_bytes = int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize

    def write(self, start: int, rows: np.ndarray) -> list[Path]:
        """Put `rows` at `start`; what they replace, if anything, was never committed.

        Returns the files and folders that `flush` has to bring to the disk.
        """
        touched, done = [], 0
        while done < len(rows):
            chunk, offset = divmod(start + done, self.chunk_rows)
            part = rows[done : done + self.chunk_rows - offset]
            touched += self._write_chunk(chunk, offset, np.ascontiguousarray(part, self.dtype.newbyteorder("<")))
            done += len(part)
        return touched

    def reserve(self, count: int) -> None:
        """Make room for `count` rows, by whole chunks: flushing a shape costs as much as flushing rows."""
        if self.meta["shape"][0] < count:
            self.resize(-(-count // self.chunk_rows) * self.chunk_rows)

    def resize(self, count: int) -> None:
        """Make the array end after `count` rows."""
        if self.meta["shape"][0] != count:
            self.meta["shape"][0] = count
            atomic_write(self.folder / "zarr.json", json.dumps(self.meta, indent=2))

    def _write_chunk(self, chunk: int, offset: int, rows: np.ndarray) -> list[Path]:
        path = self.folder.joinpath("c", str(chunk), *["0"] * len(self.row_shape))
        new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w+b" if new else "r+b") as file:
            os.ftruncate(file.fileno(), self.chunk_rows * self.row_bytes)
            file.seek(offset * self.row_bytes)
            file.write(rows.data)
        folders = path.relative_to(self.folder).parents if new else ()
        return [path, *(self.folder / folder for folder in folders)]


def flush(touched: list[Path]) -> None:
    """Bring files and folders to the disk, side by side: one after the other each would wait for the disk."""
    with ThreadPoolExecutor(len(touched)) as pool:
        list(pool.map(sync, touched))
