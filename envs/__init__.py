"""Vector environments that step whole action chunks, one seed per slot and episode.

`make` gives tensors, `make_core` numpy arrays without importing torch; `list_envs` says what runs how.
"""

from __future__ import annotations

from .core import Core, Obs, State, Step
from .registry import list_envs, make, make_core

__all__ = ["Core", "Obs", "State", "Step", "list_envs", "make", "make_core"]
