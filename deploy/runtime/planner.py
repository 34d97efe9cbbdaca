"""Who asks the policy: at once, or in a thread beside control; and delays and losses that are injected on purpose.

Shapes: T observations, D elements, m committed actions, H horizon, A action dim.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .spec import PolicyError

DELAY_STREAM, DROP_STREAM = 0x64656C61, 0x64726F70
"""keep injected delays and losses independent of each other and of all other draws from an episode's seed"""
SWITCH_S = 5e-4
"""how long Python lets the planning thread compute before control gets its turn"""


class Request(NamedTuple):
    """A question to the policy."""

    obs: Mapping[str, np.ndarray]
    """name -> (T, D)"""
    generator: np.random.Generator
    tick: int
    """when it is asked"""
    seen: int
    """when the newest observation in it was made"""
    prefix: np.ndarray | None = None
    """(m, A): from `seen` on, what has been executed, what is committed, and of a guided policy what else is planned"""
    frozen: int | None = None
    """how many of a guided policy's prefix are committed"""


class Answer(NamedTuple):
    """What came back."""

    request: Request
    chunk: np.ndarray | None
    """(H, A); None: the policy raised"""
    error: Exception | None
    ready: int
    """tick from which on it may be seen"""
    seconds: float
    """spent in the policy"""


def ask(policy: Any, request: Request, noise: np.ndarray | None = None) -> np.ndarray:
    """The policy's chunk (H, A) for one request; its noise (N, H, A), or else drawn by the request's generator."""
    drawn = {"generator": request.generator} if noise is None else {"noise": noise}
    return policy.act(request.obs, **drawn, **words(request.prefix, request.frozen))


def words(prefix: np.ndarray | None, frozen: int | None) -> dict[str, Any]:
    """What a policy is told of committed actions: nothing, if it may not know such words."""
    found = {"prefix": prefix, "frozen": frozen}
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Delays:
    """Faults to inject, so that a policy meets in a simulator what a robot would do to it."""

    delay_ms: float = 0.0
    """from an observation to the chunk made of it"""
    jitter_ms: float = 0.0
    """evenly up to this much more, drawn for every chunk"""
    drop: float = 0.0
    """chance that an observation is lost; the policy then sees the ones before"""

    def __post_init__(self) -> None:
        for what in ("delay_ms", "jitter_ms", "drop"):
            value = getattr(self, what)
            if not (math.isfinite(value) and value >= 0):
                raise PolicyError(f"{what} must be a number of at least 0, got {value}")
        if self.drop >= 1:
            raise PolicyError(f"drop {self.drop:g} leaves no observation: give a chance below 1")

    def longest(self, hz: float) -> int:
        """Most ticks that a chunk may need."""
        return _ticks(self.delay_ms + self.jitter_ms, hz)


class Faults:
    """The delays and losses of one episode: the same for the same seed."""

    def __init__(self, delays: Delays, hz: float, seed: int) -> None:
        self.delays, self.hz = delays, hz
        self._delay, self._drop = (np.random.default_rng([stream, seed]) for stream in (DELAY_STREAM, DROP_STREAM))

    def delay(self) -> int:
        """Ticks that the next chunk takes."""
        return _ticks(self.delays.delay_ms + self.delays.jitter_ms * self._delay.random(), self.hz)

    def dropped(self) -> bool:
        """Whether the next observation is lost."""
        return bool(self._drop.random() < self.delays.drop)


class Direct:
    """Asks at once, in the control step itself; only injected delays keep the answer back.

    Whatever the policy raises is an answer.
    """

    def __init__(self, policy: Any, clock: Callable[[], float]) -> None:
        self.policy, self.clock = policy, clock
        self._answer: Answer | None = None

    def start(self, request: Request, delay: int) -> None:
        """Ask; the answer is kept back for `delay` ticks."""
        self._answer = _asked(self.policy, request, delay, self.clock)

    def poll(self, tick: int) -> Answer | None:
        """The answer, once, if it is there at `tick`."""
        if self._answer is None or tick < self._answer.ready:
            return None
        answer, self._answer = self._answer, None
        return answer

    def wait(self) -> Answer:
        """The answer, whenever it may be seen."""
        assert self._answer is not None
        answer, self._answer = self._answer, None
        return answer

    def close(self) -> None:
        """Nothing is left running."""


class Threaded(Direct):
    """Asks in a thread, while control goes on."""

    def __init__(self, policy: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(policy, clock)
        self._todo: queue.SimpleQueue[tuple[Request, int] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def start(self, request: Request, delay: int) -> None:
        """Hand over to the thread; one request at a time."""
        self._todo.put((request, delay))

    def poll(self, tick: int) -> Answer | None:
        """The answer, once, if it is there at `tick`."""
        if self._answer is None and not self._done.empty():
            self._answer = self._done.get()
        return super().poll(tick)

    def wait(self) -> Answer:
        """Wait for the answer."""
        self._answer = self._answer or self._done.get()
        return super().wait()

    def close(self) -> None:
        """Let the thread finish what it computes, and end it."""
        self._todo.put(None)
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            self._done.put(_asked(self.policy, *task, self.clock))


def _asked(policy: Any, request: Request, delay: int, clock: Callable[[], float]) -> Answer:
    started = clock()
    try:
        chunk, error = ask(policy, request), None
    except Exception as raised:  # whatever it is, whoever controls must learn of it
        chunk, error = None, raised
    except SystemExit as raised:  # in a thread it would end that alone, and nobody would hear of it
        chunk, error = None, RuntimeError(f"the policy wanted to exit ({raised})")
    return Answer(request, chunk, error, request.tick + delay, clock() - started)


def _ticks(ms: float, hz: float) -> int:
    return math.ceil(ms * hz / 1e3 - 1e-9)  # a delay of one period is one tick, whatever the rounding
