"""D4RL's HDF5 layout: observations, actions, rewards, terminals, timeouts, next_observations, all (T, ...).

Fu et al. 2020, https://arxiv.org/abs/2004.07219. The file has no episode boundaries: an episode ends at a
terminal, at a timeout, and at the end of the file. Files without timeouts end one also where an observation
does not continue the previous step's `next_observations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .episodes import Episodes

_KEYS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


def read(path: str | Path) -> Episodes:
    """Read a D4RL file; its attributes are kept under `file`.

    Raises:
        UserError: where h5py is absent, the file is damaged, or keys are missing.
    """
    arrays, attributes = _open(Path(path))
    missing = [key for key in ("observations", "actions") if key not in arrays]
    if missing:
        raise UserError(f"{path} has no '{missing[0]}': it is not in D4RL's layout (which has {', '.join(_KEYS)})")
    if "terminals" not in arrays and "timeouts" not in arrays:
        raise UserError(f"{path} has neither 'terminals' nor 'timeouts': its episodes cannot be told apart")
    steps = len(arrays["actions"])
    for key, value in arrays.items():
        if len(value) != steps:
            raise UserError(f"{path}: '{key}' has {len(value)} rows but 'actions' has {steps}")
    if steps == 0:
        raise UserError(f"{path} holds no steps")
    return _episodes(arrays, attributes, Path(path).name)


def _open(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        import h5py
    except ImportError:
        raise UserError(f"reading {path} needs h5py: pip install 'noisepilot[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            arrays = {key: np.asarray(file[key]) for key in _KEYS if isinstance(file.get(key), h5py.Dataset)}
            return arrays, {key: _json(value) for key, value in file.attrs.items()}
    except OSError as error:
        raise UserError(f"{path} is not a readable HDF5 file (damaged or cut off?): {error}") from error


def _episodes(arrays: Mapping[str, np.ndarray], attributes: dict[str, Any], name: str) -> Episodes:
    steps = len(arrays["actions"])
    terminated = _flags(arrays, "terminals", steps)
    last = terminated | (_flags(arrays, "timeouts", steps) if "timeouts" in arrays else _jumps(arrays))
    last[-1] = True
    ends = np.flatnonzero(last) + 1
    data = {
        "observation.state": arrays["observations"],
        "action": arrays["actions"],
        "next.terminated": terminated,
        "next.truncated": last & ~terminated,
    }
    if "rewards" in arrays:
        data["next.reward"] = arrays["rewards"].reshape(steps)
    final = {"observation.state": arrays["next_observations"][ends - 1]} if "next_observations" in arrays else {}
    attrs = {"env": attributes.get("env", ""), "source": name, "licence": attributes.get("licence", "")}
    return Episodes(data, ends, attrs | {"file": attributes}, final)


def _flags(arrays: Mapping[str, np.ndarray], key: str, steps: int) -> np.ndarray:
    return arrays[key].reshape(steps).astype(bool) if key in arrays else np.zeros(steps, bool)


def _jumps(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    jumps = np.zeros(len(arrays["actions"]), bool)
    if "next_observations" in arrays:
        jumps[:-1] = (arrays["next_observations"][:-1] != arrays["observations"][1:]).any(1)
    return jumps


def _json(value: Any) -> Any:
    # Attributes come back as numpy scalars, arrays or bytes.
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value
