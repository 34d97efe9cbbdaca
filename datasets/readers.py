"""Which reader a path needs, told by what is there rather than by its name alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..envs.d4rl import named
from ..errors import UserError
from .episodes import Episodes
from .validity import require_sound


def load(path: str | Path, *, strict: bool = True) -> Episodes:
    """Read a dataset: a zarr folder, a D4RL `.hdf5`, or an `.npz`.

    Args:
        path: folder or file, or a name of D4RL whose file lies in D4RL's folder.
        strict: refuse NaN, infinity and empty episodes; a check of the data reads without.

    Raises:
        UserError: where `path` is missing, unknown, damaged or (if strict) unsound.
    """
    path = Path(path)
    if not path.exists() and (known := named(str(path))):
        path = known.local_file()
    if not path.exists():
        raise UserError(f"no dataset at {path}: check the path")
    try:
        episodes = _reader(path)(path)
    except PermissionError as error:
        raise UserError(f"{path} may not be read: {error.strerror}") from error
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    return require_sound(episodes, path) if strict else episodes


def _reader(path: Path) -> Callable[[Path], Episodes]:
    if path.is_dir():
        if not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
            raise UserError(f"{path} is a folder but not a dataset: it has no zarr.json")
        from .zarr_layout import read

        return read
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic == b"\x89HDF\r\n\x1a\n":
        from .d4rl import read

        return read
    if magic[:4] == b"PK\x03\x04":
        from .npz import read

        return read
    raise UserError(f"{path} is not a dataset: expected a zarr folder, an HDF5 file (D4RL) or an .npz archive")
