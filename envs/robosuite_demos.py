"""States of recorded demonstrations of robosuite, from an HDF5 file.

The models stored beside them are not loaded: those of one version do not fit the next (parts are named anew). What
a model draws anew in every episode (Lift: half the cube's edge, 20 to 22 mm) so follows from the episode's seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError


class Demonstrations:
    """Demonstrations of one file, in the order of their numbers; read when asked for."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(f"init_states: there is no file {self.path}")
        with self._open() as file:
            names = [name for name in file.get("data", ()) if "states" in file["data"][name]]
        self.names = sorted(names, key=lambda name: int("".join(filter(str.isdigit, name)) or 0))
        if not names:
            raise UserError(f"init_states: {self.path} holds no simulator states (data/demo_i/states)")

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def start(self, index: int) -> np.ndarray:
        """First state (Q,) of a demonstration, counted around."""
        return self.episode(index % len(self))[0][0]

    def episode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """States (L, Q) before each action, and actions (L, A)."""
        with self._open() as file:
            demo = file["data"][self.names[index]]
            return demo["states"][:], demo["actions"][:]

    def _open(self) -> Any:
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise UserError("init_states needs h5py: pip install 'noisepilot[hdf5]'") from error
        try:
            return h5py.File(self.path)
        except OSError as error:
            raise UserError(f"init_states: {self.path} is not an HDF5 file") from error
