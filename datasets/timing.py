"""Do recorded times agree with the rate the set claims? Times are `timestamp` (seconds), where a set has them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .episodes import Episodes

TOLERANCE = 0.01
"""relative difference between the claimed and the recorded rate above which the claim is false"""
LATE = 0.5
"""of a period: by how much two frames may lie closer together or further apart than one"""
KEYS = ("timestamp", "observation.timestamp")
Level = Literal["error", "warning", "info"]
"""of a finding"""


def mistimed(episodes: Episodes) -> list[tuple[Level, str, str]]:
    """(level, key, message) for a false rate, times that do not increase, and frames lost or repeated."""
    key = next((key for key in KEYS if key in episodes.data), "")
    if not key:
        return []
    times = episodes.data[key].astype(np.float64).reshape(episodes.num_steps, -1)[:, 0]
    inner = np.ones(episodes.num_steps, bool)
    inner[episodes.ends[episodes.lengths > 0] - 1] = False
    steps = np.diff(times, append=times[-1:])[inner]
    rows = np.flatnonzero(inner)
    if not len(steps) or not np.isfinite(steps).all():
        return []
    if (steps <= 0).any():
        where = int(np.searchsorted(episodes.ends, rows[np.argmax(steps <= 0)], side="right"))
        count = int((steps <= 0).sum())
        return [("error", key, f"does not increase at {count} steps, first in episode {where}: sort or drop them")]
    period, found = float(np.median(steps)), []
    claimed = float(episodes.attrs.get("fps") or 0)
    if claimed and abs(period * claimed - 1) > TOLERANCE:
        message = f"{claimed:g} is claimed, but frames lie {period:.4g} s apart, which is {1 / period:.4g}"
        found.append(("error", "fps", f"{message}: correct the attribute, or resample"))
    late = np.abs(steps / period - 1) > LATE
    if late.any():
        where = np.unique(np.searchsorted(episodes.ends, rows[late], side="right"))
        message = f"{late.sum()} frames are lost or doubled (worst gap {steps.max() / period:.3g} periods)"
        found.append(("warning", key, f"{message}, in {len(where)} episodes, first {where[0]}: resample or cut there"))
    return found
