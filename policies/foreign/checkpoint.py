"""Files that others wrote, and nothing in them is run.

Checkpoints of `torch.save` are zip archives of raw storages and one pickle; archives of arrays (.npz) hold none.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from .unpickler import Unpickler


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """The dictionary that a checkpoint holds: nested containers, numbers, strings, bytes, CPU tensors and `Opaque`s.

    Tensors that shared memory share it again.

    Raises:
        UserError: for a file that is no checkpoint of torch 1.6 or later, is damaged, or claims more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Archive(archive, path.stat().st_size).load()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check the path") from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except zipfile.BadZipFile:
        raise UserError(
            f"{path} is no checkpoint of torch 1.6 or later, or a damaged one: copy it again, "
            "or save it anew with torch.save"
        ) from None
    except Exception as error:  # whatever a damaged or hostile program trips over
        what = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is damaged ({type(error).__name__}: {what}): copy it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a dictionary: give a checkpoint of a training")
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Raises:
        UserError: if it cannot be read, or holds pickles.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable .npz file ({error}): give the arrays as .npz") from None


class _Archive:
    """The storages of one file."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.entries = {entry.filename: entry for entry in archive.infolist()}
        if len(self.entries) < len(archive.infolist()):
            raise UserError("names an entry twice: it was not written by torch.save")
        packed = any(e.compress_type != zipfile.ZIP_STORED for e in self.entries.values())
        if packed or sum(e.file_size for e in self.entries.values()) > size:
            raise UserError("unpacks to more than its size: torch.save does not compress; copy it again")
        programs = [name for name in self.entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise UserError("holds no data.pkl: it was not written by torch.save, or by a torch older than 1.6")
        self.root = programs[0].partition("/")[0]
        if f"{self.root}/byteorder" in self.entries and self._read("byteorder") != b"little":
            raise UserError("was written on a big-endian machine: save it anew on another")
        self.storages: dict[str, Tensor] = {}

    def load(self) -> Any:
        """Run the program, with nothing in its reach."""
        with self.archive.open(f"{self.root}/data.pkl") as program:
            return Unpickler(program, self.storage).load()

    def storage(self, identity: Any) -> Tensor:
        """One storage as bytes; `identity` is what the program says of it."""
        kind, dtype, key, _, _ = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or f"{self.root}/data/{key}" not in self.entries:
            raise UserError(f"lacks the storage {str(key)[:40]!r}: copy it again")
        if key not in self.storages:
            content = bytearray(self._read(f"data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0).byte()
        whole = self.storages[key]
        return whole[: len(whole) // dtype.itemsize * dtype.itemsize].view(dtype)

    def _read(self, name: str) -> bytes:
        return self.archive.read(f"{self.root}/{name}")
