"""A grid of deadlines at a fixed rate. The grid is absolute: errors of single waits never add up."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPIN_S = 1e-3
"""the last stretch before a deadline is spun through: a sleep may return this much too late"""


class Pace:
    """Deadlines at start + i / hz, where start is the moment of construction."""

    def __init__(self, hz: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.period = 1 / hz
        self.clock, self.sleep = clock, sleep
        self.start = clock()
        self.tick = 0
        """index of the last deadline that was waited for"""

    def wait(self) -> float:
        """Wait for the next deadline; return by how many seconds it was missed, 0 if it was not.

        After a miss the caller goes on at once, and the next deadline is the next one on the grid that lies
        ahead: lost time is not made up by a burst of commands.
        """
        self.tick += 1
        deadline = self.start + self.tick * self.period
        now = self.clock()
        if now > deadline:
            self.tick = math.floor((now - self.start) / self.period)
            return now - deadline
        if deadline - now > SPIN_S:
            self.sleep(deadline - now - SPIN_S)
        while self.clock() < deadline:
            pass
        return 0.0


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector out of a timed block."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
