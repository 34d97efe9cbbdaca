"""One inference thread: what waits when it becomes free goes into one call of the policy.

Every row brings its own noise, so that what it is batched with changes an action by rounding alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..runtime.policy import Policy
from ..runtime.spec import PolicyError
from .metrics import Metrics

Array = np.ndarray
WARM_UP = 5
"""calls of each size before the first client: first calls allocate"""


class InferenceError(PolicyError):
    """The policy itself failed."""


@dataclass(frozen=True)
class Answer:
    """Actions (B, H, A) and where the time went."""

    actions: Array
    infer_s: float
    queue_s: float


@dataclass(eq=False)
class _Job:
    feeds: dict[str, Array]
    future: asyncio.Future[Answer]
    since: float = field(default_factory=time.perf_counter)

    @property
    def rows(self) -> int:
        return len(self.feeds["noise"])


class Batcher:
    """Belongs to the event loop that awaits `run`."""

    def __init__(self, policy: Policy, max_rows: int, metrics: Metrics) -> None:
        self.policy, self.max_rows, self.metrics = policy, max_rows, metrics
        self._waiting: deque[_Job] = deque()
        self._wake = asyncio.Event()

    async def submit(self, feeds: dict[str, Array]) -> Answer:
        """Wait for the actions of at most `max_rows` rows.

        Raises:
            InferenceError: if the policy fails.
        """
        job = _Job(feeds, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._wake.set()
        return await job.future

    async def run(self) -> None:
        """Serve what is submitted, until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "inference") as thread:
            while True:
                await self._wake.wait()
                jobs = self._next()
                if not jobs:
                    self._wake.clear()
                    continue
                start = time.perf_counter()
                try:
                    actions = await loop.run_in_executor(thread, play, self.policy, [job.feeds for job in jobs])
                except InferenceError as error:
                    _fail(jobs, error)
                else:
                    self._answer(jobs, actions, start)

    def _next(self) -> list[_Job]:
        jobs, rows = [], 0
        while self._waiting and rows + self._waiting[0].rows <= self.max_rows:
            job = self._waiting.popleft()
            if not job.future.done():  # its client may have left
                jobs.append(job)
                rows += job.rows
        return jobs

    def _answer(self, jobs: list[_Job], actions: Array, start: float) -> None:
        infer_s = time.perf_counter() - start
        self.metrics.inference.observe(infer_s)
        self.metrics.rows.observe(len(actions))
        first = 0
        for job in jobs:
            mine = actions[first : first + job.rows]
            first += job.rows
            if not job.future.done():
                job.future.set_result(Answer(mine, infer_s, start - job.since))


def play(policy: Policy, feeds: list[dict[str, Array]]) -> Array:
    """The actions of several requests, one after the other.

    Raises:
        InferenceError: whatever it was that failed.
    """
    whole = feeds[0] if len(feeds) == 1 else {name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]}
    try:
        actions = policy.run(whole)
    except Exception as error:  # onnxruntime's errors share no narrower class
        raise InferenceError(f"the policy failed: {str(error).partition(chr(10))[0] or type(error).__name__}") from None
    wanted = (len(whole["noise"]), *policy.spec.action["shape"])
    if actions.shape != wanted:
        raise InferenceError(f"the policy returned actions of shape {actions.shape}, expected {wanted}")
    return actions


def warm_up(policy: Policy, max_rows: int) -> None:
    """Call the policy with one row and with as many as it may get.

    Raises:
        InferenceError: if it cannot.
    """
    inputs = {
        "observation." + name: (array["shape"], array.get("dtype", "float32"))
        for name, array in policy.spec.observations.items()
    }
    inputs["noise"] = (policy.spec.noise_shape, "float32")
    if most := policy.spec.max_prefix:
        inputs |= {"prefix_actions": ((most, policy.spec.action["shape"][1]), "float32"), "prefix_len": ((), "int64")}
    for rows in dict.fromkeys([1, max_rows]):
        for _ in range(WARM_UP):
            play(policy, [{name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in inputs.items()}])


def _fail(jobs: list[_Job], error: InferenceError) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(InferenceError(str(error)))
