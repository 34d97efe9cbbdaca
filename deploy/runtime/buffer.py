"""A timestamped action buffer: what each arrived chunk says about each tick of control.

A chunk is put in with the tick that its first action is meant for. Whatever time it took to compute, what is executed
at a tick is the action meant for that tick: the actions whose ticks have passed are skipped (splice by actions
consumed). Shapes: n actions of a chunk, A action dim.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NONE = -1
"""source of what no chunk speaks about"""


class Planned(NamedTuple):
    """What the buffer says about a tick."""

    action: np.ndarray | None
    """(A,); None if no chunk speaks about the tick, or none with finite numbers"""
    source: int
    """number of the newest chunk that speaks about the tick in finite numbers, or else at all; NONE: there is none"""


class _Chunk(NamedTuple):
    number: int
    start: int
    actions: np.ndarray


class Buffer:
    """The chunks of one episode, in the order of their arrival.

    Args:
        ensemble: m of temporal ensembling (Zhao et al. 2023, https://arxiv.org/abs/2304.13705): the action of a tick is
            the mean of what all chunks say about it, with weights exp(-m i), i = 0 for the oldest; None: the newest
            chunk alone speaks.
    """

    def __init__(self, ensemble: float | None = None) -> None:
        self.ensemble = ensemble
        self._chunks: list[_Chunk] = []
        self._count = 0

    def put(self, actions: np.ndarray, start: int) -> None:
        """Add a chunk (n, A) whose first action is meant for tick `start`. Actions that are not finite stay outside."""
        self._chunks.append(_Chunk(self._count, start, np.asarray(actions)))
        self._count += 1

    def at(self, tick: int) -> Planned:
        """What to execute at `tick`."""
        speaking = [c for c in self._chunks if 0 <= tick - c.start < len(c.actions)]
        if not speaking:
            return Planned(None, NONE)
        said = {c.number: c.actions[tick - c.start] for c in speaking}
        finite = {number: action for number, action in said.items() if np.isfinite(action).all()}
        if not finite:
            return Planned(None, speaking[-1].number)
        source = max(finite)
        if self.ensemble is None or len(finite) == 1:
            return Planned(finite[source], source)
        weights = np.exp(-self.ensemble * np.arange(len(finite)))
        mean = weights @ np.stack(list(finite.values())) / weights.sum()
        return Planned(mean.astype(finite[source].dtype), source)

    def ahead(self, tick: int, most: int) -> np.ndarray:
        """The actions (m, A), m <= `most`, that would be executed from `tick` on if no chunk came; A is 0 if m is."""
        found = []
        for later in range(tick, tick + most):
            action = self.at(later).action
            if action is None:
                break
            found.append(action)
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    def forget(self, tick: int) -> None:
        """Drop chunks that say nothing about `tick` or later."""
        self._chunks = [c for c in self._chunks if c.start + len(c.actions) > tick]
