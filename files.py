"""Files that are there whole or not at all: write beside, flush to the disk, rename into place.

A process killed at any moment leaves the old content or the new one; an exception leaves no temporary behind.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "the quota is used up; free some space or choose another disk",
    errno.EACCES: "no permission; choose a folder you may write to",
    errno.EPERM: "no permission; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose a folder you may write to",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
    errno.EEXIST: "a file stands where a folder is needed; choose another path",
    errno.EISDIR: "a folder stands where a file is needed; choose another path",
}


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Replace the file at `path` by `content` (text as UTF-8); missing folders are made.

    Raises:
        UserError: where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _sibling(path)
        try:
            with open(temporary, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an exception.

    Args:
        path: where the folder appears; missing parents are made.
        replace: put it in the place of an existing folder, which is deleted afterwards.

    Raises:
        UserError: `path` exists and may not be replaced, the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    if not replace:
        refuse_existing(path)
    with naming(path):
        temporary = _sibling(path)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _sync_tree(temporary)
            _swap(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def append_line(path: str | Path, line: str) -> None:
    """Append one line to a log and flush it; half a line left by a killed writer is dropped first.

    Raises:
        UserError: where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            _drop_torn_line(file.fileno())
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn the file system's refusal to write into one line that names `path` and the fix.

    Raises:
        UserError: for a full disk, a read-only or forbidden place; other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise UserError(f"cannot write {path}: {_REASONS[error.errno]}") from error


def is_empty(folder: Path) -> bool:
    """Nothing is at `folder`, or a folder with nothing inside but what a killed writer left unfinished."""
    return not folder.exists() or (folder.is_dir() and all(p.match(".*.tmp") for p in folder.iterdir()))


def sweep(folder: Path) -> None:
    """Remove what killed writers left unfinished anywhere below `folder`; nobody else may be writing there."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # may have gone with its folder


def refuse_existing(path: Path) -> None:
    """Raise a UserError where something other than an empty folder stands at `path`."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already: choose another path or remove it first")


def sync(path: Path) -> None:
    """Flush one file, or the names inside one folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(root, name))
        sync(Path(root))


def _swap(temporary: Path, path: Path) -> None:
    # A rename cannot replace a folder that holds something: the old one steps aside and is deleted last.
    if not path.exists():
        os.replace(temporary, path)
        return
    aside = _sibling(path)
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside)


def _drop_torn_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    keep = size
    while keep > 0:
        start = max(0, keep - 4096)
        newline = os.pread(handle, keep - start, start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep < size:
        os.ftruncate(handle, keep)
