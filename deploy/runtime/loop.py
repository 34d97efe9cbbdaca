"""A control loop at a fixed rate: observe, plan a chunk, play `n_action_steps` of it, plan again.

Each step must end before its deadline (`pace.py`); garbage collection is off while the clock runs.
Shapes: T observations, D elements, H horizon, A action dim; one environment.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .gate import Gate
from .pace import Pace
from .policy import Policy
from .spec import PolicyError

WARM_UP = 20
"""decisions made before the clock starts and left out of the latencies"""
NOISE_STREAM = 0x6E6F6973
"""keeps the policy's noise independent of the environment's own draws from the same seed; that of `eval`"""
Obs = Mapping[str, np.ndarray]


def run_loop(
    policy: Policy,
    env: Any,
    *,
    hz: float,
    episodes: int = 1,
    steps: int | None = None,
    seed: int = 0,
    gate: Gate | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Play episodes in real time and measure.

    Args:
        policy: what acts; the noise of an episode comes from a generator seeded by the episode's seed.
        env: one slot; `reset([seed])` -> name -> (1, D), `step(action (1, 1, A))` -> an object with `obs`,
            `reward`, `terminated`, `truncated` and `signals`, each with the leading axes (1, 1). With `valid` False at
            its end an episode was lost, and has no return.
        hz: control rate.
        episodes: how many, with seeds `seed`, `seed` + 1, ...
        steps: stop after this many control steps in all.
        seed: of the first episode.
        gate: what every action passes before it is sent; also what the policy refuses to act on is then its
            business. While it is latched no new episode begins.
        clock: seconds; only differences matter.
        sleep: waits for seconds, by the same clock.

    Returns:
        JSON values: rates, `inference_ms` (p50, p95, p99, max, count), `misses` and the largest lateness,
        `held` (steps whose action was not finite and repeated the one before), one entry per episode; with a
        gate `gate`, its report.

    Raises:
        PolicyError: if observations do not fit, the very first action is not finite, or the gate has another rate.
    """
    if hz <= 0 or episodes < 1:
        raise PolicyError(f"hz {hz} and episodes {episodes} must be positive")
    if gate is not None and gate.hz != hz:
        raise PolicyError(f"the gate was made for {gate.hz:g} Hz, the loop runs at {hz:g} Hz: make both equal")
    record = Record()
    budget = sys.maxsize if steps is None else steps
    for episode_seed in range(seed, seed + episodes):
        if record.steps >= budget or (gate is not None and gate.latched):
            break
        player = Player(policy, env.reset([episode_seed]), episode_seed, clock, record.inference_s, gate)
        if episode_seed == seed:
            player.warm_up()
        with no_garbage_collection():
            record.episodes.append(_play(player, env, Pace(hz, clock, sleep), record, budget, episode_seed))
    return record.report(hz) if gate is None else {**record.report(hz), "gate": gate.report()}


def _play(
    player: Player, env: Any, pace: Pace, record: Record, budget: int, seed: int
) -> dict[str, int | float | None]:
    total, length, success = 0.0, 0, None
    ended, lost, late = False, False, 0.0
    while not ended and record.steps < budget:
        step = env.step(player.next_action(late)[None, None])
        player.observe({name: value[:, -1] for name, value in step.obs.items()})
        total += float(step.reward[0, 0])
        length += 1
        if "success" in step.signals:
            success = max(success or 0.0, float(step.signals["success"][0, 0]))
        ended = bool(step.terminated[0, 0] or step.truncated[0, 0])
        lost = ended and hasattr(step, "valid") and not step.valid[0, 0]
        late = pace.wait()
        record.late_s.append(late)
    record.paced_s += pace.clock() - pace.start
    record.held += player.held
    if lost:
        return {"seed": seed, "return": None, "length": length - 1, "success": None}
    return {"seed": seed, "return": total, "length": length, "success": success}


class Player:
    """One episode's history of observations and the chunk that is being played."""

    def __init__(
        self,
        policy: Policy,
        obs: Obs,
        seed: int,
        clock: Callable[[], float],
        inference_s: list[float],
        gate: Gate | None = None,
    ) -> None:
        self.policy, self.clock, self.inference_s, self.gate = policy, clock, inference_s, gate
        self.generator = np.random.default_rng([NOISE_STREAM, seed])
        self.history: deque[Obs] = deque([obs] * policy.spec.n_obs_steps, policy.spec.n_obs_steps)
        self.queue: deque[np.ndarray] = deque()
        self.last: np.ndarray | None = None
        self.held = 0
        self.seen_at = clock()
        if gate is not None:
            gate.start()

    def observe(self, obs: Obs) -> None:
        """Take note of name -> (1, D)."""
        self.history.append(obs)
        self.seen_at = self.clock()

    def next_action(self, late_s: float = 0.0) -> np.ndarray:
        """The action (A,) to execute now: what the gate makes of it, or else the one before if it is not finite.

        `late_s`: by how much the deadline before was missed.
        """
        if self.gate is not None:
            try:
                action = self._planned()
            except PolicyError:  # of an observation that is not finite, say: no reason to fall silent
                action = None
            return self.gate.step(action, self.history[-1], self.clock() - self.seen_at, late_s).action
        action = self._planned()
        if np.isfinite(action).all():
            self.last = action
            return action
        if self.last is None:
            raise PolicyError("the first action is not finite and there is none before it to hold: check the policy")
        self.held += 1
        return self.last

    def _planned(self) -> np.ndarray:
        if not self.queue:
            self.queue.extend(self._plan()[: self.policy.spec.n_action_steps])
        action = self.queue.popleft()
        return self.policy.correct(self._stacked(), action) if self.policy.corrects else action

    def warm_up(self) -> None:
        """Decide a few times without effect: first calls allocate."""
        noise = np.zeros(self.policy.spec.noise_shape, np.float32)
        for _ in range(WARM_UP):
            self.policy.act(self._stacked(), noise)

    def _plan(self) -> np.ndarray:
        start = self.clock()
        chunk = self.policy.act(self._stacked(), generator=self.generator)
        self.inference_s.append(self.clock() - start)
        return chunk

    def _stacked(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([obs[name] for obs in self.history]) for name in self.policy.spec.observations}


@dataclass
class Record:
    """What was measured, over all episodes."""

    inference_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    paced_s: float = 0.0
    held: int = 0

    @property
    def steps(self) -> int:
        """Control steps so far."""
        return len(self.late_s)

    def report(self, hz: float) -> dict[str, Any]:
        """See `run_loop`."""
        ms = 1e3 * np.array(self.inference_s)
        p50, p95, p99 = np.percentile(ms, [50, 95, 99]).tolist() if len(ms) else (None, None, None)
        top = float(ms.max()) if len(ms) else None
        return {
            "hz": hz,
            "achieved_hz": self.steps / self.paced_s if self.paced_s > 0 else None,
            "steps": self.steps,
            "inference_ms": {"p50": p50, "p95": p95, "p99": p99, "max": top, "count": len(ms)},
            "misses": sum(late > 0 for late in self.late_s),
            "late_ms_max": 1e3 * max(self.late_s, default=0.0),
            "held": self.held,
            "episodes": self.episodes,
        }


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
