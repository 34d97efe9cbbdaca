"""A crew of threads that shares rows of work; MuJoCo releases the interpreter lock while it computes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


def cores() -> int:
    """Processor cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Crew:
    """One worker per core, the caller among them; who is free takes the next row."""

    def __init__(self, rows: int) -> None:
        self.size = max(1, min(cores(), rows))
        self.pool = ThreadPoolExecutor(self.size - 1) if self.size > 1 else None

    def run(self, work: Callable[[int, Iterator[int]], None], rows: int) -> None:
        """Call `work(worker, rows)` in every worker; together they draw each of `rows` rows once."""
        # Drawing from a range's iterator is atomic: it needs no lock of ours.
        queue = iter(range(rows))
        helpers = range(1, min(self.size, rows))
        futures = [self.pool.submit(work, worker, queue) for worker in helpers] if self.pool else []
        work(0, queue)
        for future in futures:
            future.result()

    def close(self) -> None:
        """End the threads."""
        if self.pool:
            self.pool.shutdown()
