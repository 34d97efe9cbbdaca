"""Files from strangers: nothing is unpacked, and what would fill the memory or leave its folder is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from ..errors import UserError

FREE_BYTES = 2**30
"""unpacked size that is never held against an archive"""
MOST_RATIO = 200
"""beyond it, how many times larger than its file something may claim to be; raw images stay below 50"""


def is_zip(path: Path) -> bool:
    """Whether a file begins as a ZIP archive does."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Name -> member of an archive, looked through before anything of it is read.

    Raises:
        UserError: for a damaged archive, names that leave it, one name twice, encryption, or a decompression bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is not a readable archive (damaged or cut off?): {error}") from error
    found: dict[str, zipfile.ZipInfo] = {}
    for info in listed:
        name = info.filename
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
            raise UserError(f"{path} has a member '{name}' that leads out of it: refused")
        if name in found:
            raise UserError(f"{path} has two members '{name}': refused")
        if info.flag_bits & 1:
            raise UserError(f"{path} is encrypted: unpack it first")
        found[name] = info
    refuse_bomb(str(path), path.stat().st_size, sum(info.file_size for info in listed))
    return found


def refuse_bomb(name: str, stored: int, claimed: int) -> None:
    """Refuse what takes `stored` bytes and claims to be `claimed` unpacked, if that is out of proportion.

    Raises:
        UserError: naming both sizes.
    """
    if claimed > max(FREE_BYTES, MOST_RATIO * stored):
        raise UserError(f"{name} has {stored:,} bytes and claims {claimed:,} unpacked: refused as a decompression bomb")
