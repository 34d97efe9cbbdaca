"""LIBERO as robosuite steps it, to compare with; opened in workers."""

from __future__ import annotations

from noisepilot.envs import libero


def open_slow(**keywords):
    """As `open_libero`, every simulation step computed three times."""
    libero.quicken = lambda env: None
    return libero.open_libero(**keywords)
