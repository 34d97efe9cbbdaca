"""Which format a path is in, told by what is there rather than by its name alone.

A format is one module beside this one (see `source`) and one line in `FORMATS`.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..envs.d4rl import named
from ..errors import UserError, unknown
from .episodes import Episodes
from .source import Source, collect
from .validity import require_sound

FORMATS = {
    "zarr_layout": "a zarr folder of noisepilot",
    "diffusion_policy": "a zarr folder or .zip of Diffusion Policy",
    "minari": "a Minari folder",
    "robomimic": "robomimic .hdf5",
    "robosuite": "robosuite .hdf5",
    "d4rl": "D4RL .hdf5",
    "npz": ".npz",
    "lerobot": "a LeRobot folder (v2.0, v2.1, v3.0)",
}
"""module -> what it reads; asked in this order, so a layout stands before those that take anything of its kind"""


def load(path: str | Path, *, strict: bool = True, **options: Any) -> Episodes:
    """Read a dataset of any known format into memory.

    Args:
        path: folder or file, or a name of D4RL whose file lies in D4RL's folder.
        strict: refuse NaN, infinity and empty episodes; a check of the data reads without.
        **options: of the format, see its module's `open_source`.

    Raises:
        UserError: where `path` is missing, unknown, damaged or (if strict) unsound.
    """
    source = open_source(path, **options)
    try:
        episodes = collect(source)
    except UserError as error:
        raise naming(path, error) from None
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory: {error}") from None
    return require_sound(episodes, path) if strict else episodes


def open_source(path: str | Path, **options: Any) -> Source:
    """Open a dataset of any known format, to read episode by episode.

    Raises:
        UserError: where `path` is missing, unknown or damaged, or the format has no such option.
    """
    path = Path(path)
    if not path.exists() and (known := named(str(path))):
        path = known.local_file()
    if not path.exists():
        raise UserError(f"no dataset at {path}: check the path")
    try:
        module = _format(path)
        known = list(inspect.signature(module.open_source).parameters)[1:]
        for name in options:
            if name not in known:
                raise unknown(f"option of {FORMATS[module.__name__.rpartition('.')[2]]}", name, known)
        return module.open_source(path, **options)
    except PermissionError as error:
        raise UserError(f"{path} may not be read: {error.strerror}") from error
    except UserError as error:
        raise naming(path, error) from None


def naming(path: str | Path, error: UserError) -> UserError:
    """The error, beginning with the path unless it names it already."""
    return error if str(path) in str(error) else UserError(f"{path}: {error}")


def _format(path: Path) -> ModuleType:
    for name in FORMATS:
        module = import_module(f".{name}", __package__)
        if module.recognises(path):
            return module
    known = ", ".join(FORMATS.values())
    if path.is_dir():
        raise UserError(f"{path} is a folder but not a dataset of a known format: {known}")
    raise UserError(f"{path} is not a dataset of a known format: {known}")
