"""What every HDF5 layout needs: opening a file, plain arrays out of it, attributes as JSON values.

Only numbers stored in the file itself are read. Links to other files, external and virtual storage would let a
downloaded set read whatever lies on the disk, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .archive import refuse_bomb

MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file (an `h5py.File`) for reading.

    Raises:
        UserError: where h5py is absent, or the file is damaged, also where that shows inside the block.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"reading {path} needs h5py: pip install 'noisepilot[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError:
        raise
    except (OSError, RuntimeError, KeyError, MemoryError) as error:  # what h5py raises for damaged files
        reason = (str(error).strip("'\" ") or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a readable HDF5 file (damaged or cut off?): {reason}") from error


def child(group: Any, name: str) -> Any:
    """A dataset or group inside `group`, or None where there is none.

    Raises:
        UserError: for a link out of the file.
    """
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group.keys():  # noqa: SIM118  `in group` follows links
            return None
        # A soft link's path may lead over an external one: what was found says which file it is in.
        external = isinstance(group.get(part, getlink=True), h5py.ExternalLink)
        if external or group[part].file.filename != group.file.filename:
            raise UserError(f"'{part}' is a link to another file: only data of its own is read")
        group = group[part]
    return group


def column(group: Any, name: str) -> Any:
    """A dataset of numbers in this very file, unread (an `h5py.Dataset`), or None where there is none.

    Raises:
        UserError: for a group, another type, a single number, storage elsewhere, or a decompression bomb.
    """
    import h5py

    found = child(group, name)
    if found is None:
        return None
    where = f"{group.name.rstrip('/')}/{name}"
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"'{where}' is a group but must be an array")
    if found.is_virtual or found.external:
        raise UserError(f"'{where}' is stored in another file: only data of its own is read")
    if found.dtype.kind not in "fiub":
        raise UserError(f"'{where}' has type {found.dtype}: only numbers and booleans can be read")
    if found.ndim == 0:
        raise UserError(f"'{where}' is a single number but must have one row per step")
    refuse_bomb(f"'{where}'", found.id.get_storage_size(), found.nbytes)
    return found


def array(group: Any, name: str) -> np.ndarray:
    """A dataset of numbers, read whole.

    Raises:
        UserError: where it is missing, or as `column`.
    """
    found = column(group, name)
    if found is None:
        raise UserError(f"'{group.name.rstrip('/')}' has no '{name}': it has {', '.join(group) or 'nothing'}")
    return np.asarray(found[()])


def in_order(names: Any) -> list[str]:
    """Names in the order of the numbers in them: demo_2 before demo_10."""
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def attributes(node: Any) -> dict[str, Any]:
    """Attributes as JSON values; numpy scalars, arrays and bytes are turned into their like."""
    return {key: json_value(value) for key, value in node.attrs.items()}


def json_value(value: Any) -> Any:
    """A JSON value of what h5py hands out."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (np.generic, np.ndarray)):
        return json_value(value.tolist())
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
