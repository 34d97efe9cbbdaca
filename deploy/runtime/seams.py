"""How hard a robot is jerked where one chunk follows another, against inside of chunks.

Jerk is the mean absolute third difference of four commands in a row, each element as a fraction of the action's range.
Four commands of which not all come from one chunk span a seam; four that all hold are neither. Shapes: A action dim.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .buffer import NONE

WINDOW = 4
"""commands of a third difference"""
BINOMIAL = np.array([-1.0, 3.0, -3.0, 1.0])


def action_range(action: Mapping[str, Any]) -> np.ndarray:
    """Width (A,) of what training has seen of each element, or of its limits; 1 where neither is known, or is 0."""
    dim = action["shape"][-1]
    for low, high in (("seen_low", "seen_high"), ("low", "high")):
        if action.get(low) is not None and action.get(high) is not None:
            width = np.asarray(action[high], np.float64) - np.asarray(action[low], np.float64)
            return np.where(np.isfinite(width) & (width > 0), width, 1.0)
    return np.ones(dim)


class Seams:
    """Counts while commands pass; `width` (A,) is what jerk is a fraction of."""

    def __init__(self, width: np.ndarray) -> None:
        self.width = width
        self.count = 0
        """of seams"""
        self.sums = {"seams": 0.0, "inside": 0.0}
        self.windows = {"seams": 0, "inside": 0}
        self.start()

    def start(self) -> None:
        """A new episode: nothing precedes its first command."""
        self._commands: deque[np.ndarray] = deque(maxlen=WINDOW)
        self._sources: deque[int] = deque(maxlen=WINDOW)

    def push(self, command: np.ndarray, source: int) -> None:
        """The next command (A,), and which chunk it comes from."""
        self.count += bool(self._sources) and self._sources[-1] != source
        self._commands.append(np.asarray(command, np.float64) / self.width)
        self._sources.append(source)
        sources = set(self._sources)
        if len(self._commands) == WINDOW and sources != {NONE}:
            where = "inside" if len(sources) == 1 else "seams"
            self.sums[where] += float(np.abs(BINOMIAL @ np.stack(self._commands)).mean())
            self.windows[where] += 1

    @classmethod
    def together(cls, several: Sequence[Seams]) -> Seams:
        """The sums of several."""
        total = cls(several[0].width)
        total.count = sum(one.count for one in several)
        for key in total.sums:
            total.sums[key] = sum(one.sums[key] for one in several)
            total.windows[key] = sum(one.windows[key] for one in several)
        return total

    def jerk(self) -> dict[str, float | None]:
        """Mean jerk at `seams` and `inside` chunks; None without such commands."""
        return {key: self.sums[key] / n if n else None for key, n in self.windows.items()}
