"""A control loop at a fixed rate: observe, plan, play; planning waits for nobody or goes on in a thread.

Each step must end before its deadline (`pace.py`); garbage collection is off while the clock runs. `player.py` says
what the modes are. Shapes: T observations, D elements, H horizon, A action dim; one environment.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .control import WARM_UP, Control
from .gate import Gate
from .pace import Pace, no_garbage_collection
from .planner import Delays
from .player import Chunking
from .record import Record
from .spec import PolicyError
from .upsample import ratio


def run_loop(
    policy: Any,
    env: Any,
    *,
    hz: float,
    episodes: int = 1,
    steps: int | None = None,
    seed: int = 0,
    gate: Gate | None = None,
    chunking: Chunking | None = None,
    delays: Delays | None = None,
    controller_hz: float | None = None,
    traces: list[dict[str, Any]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Play episodes in real time and measure.

    Args:
        policy: what acts, with `spec` and `act` as a `Policy` has them; the noise of an episode comes from a generator
            seeded by the episode's seed.
        env: one slot; `reset([seed])` -> name -> (1, D), `step(action (1, 1, A))` -> an object with `obs`,
            `reward`, `terminated`, `truncated` and `signals`, each with the leading axes (1, 1). With `valid` False at
            its end an episode was lost, and has no return.
        hz: rate of the policy's actions.
        episodes: how many, with seeds `seed`, `seed` + 1, ...
        steps: stop after this many control steps in all.
        seed: of the first episode.
        gate: what every command passes before it is sent; also what the policy refuses to act on is then its
            business. While it is latched no new episode begins.
        chunking: mode, how many actions of a chunk are executed, ensembling; None: sync. Modes async and rtc plan in a
            thread, so `clock` must be real.
        delays: faults to inject.
        controller_hz: rate of the commands, a multiple of `hz`, of which actions that are positions are joined by
            straight lines; None: `hz`.
        traces: gets one mapping per episode: `commands`, `sources` (number of each command's chunk, -1: held),
            `late_s`, and `plans`, rows of tick, actions consumed and seconds.
        clock: seconds; only differences matter.
        sleep: waits for seconds, by the same clock.

    Returns:
        JSON values: rates, `mode`, `execute`, `inference_ms` (p50, p95, p99, max, count), `misses` and the largest
        lateness, `held` (commands whose action was not finite and repeated the one before), `starved` (ticks without
        a plan, which repeat it too), `refused` (chunks with numbers that are not finite, or that the policy refused to
        make), `fault` (why, the first time), `seams` and `jerk` (`seams.py`), `consumed_max`, one entry per episode;
        with a gate `gate`, its report.

    Raises:
        PolicyError: if observations do not fit, the very first action is not finite, the gate has another rate, or
            the policy cannot be played in this mode.
    """
    rate = hz if controller_hz is None else controller_hz
    if not 0 < hz < math.inf or episodes < 1 or (steps is not None and steps < 1):
        raise PolicyError(f"hz {hz}, episodes {episodes} and steps {steps} must be positive numbers")
    if gate is not None and gate.hz != rate:
        raise PolicyError(f"the gate was made for {gate.hz:g} Hz, the loop runs at {rate:g} Hz: make both equal")
    delays, chunking = delays or Delays(), chunking or Chunking()
    chunking.resolved(policy, injected=delays.longest(hz))
    record = Record(policy.spec.action, sys.maxsize if steps is None else steps, traces)
    loop = _Loop(policy, env, hz, ratio(hz, rate), gate, chunking, delays, record, clock, sleep)
    for episode_seed in range(seed, seed + episodes):
        if record.full or (gate is not None and gate.latched):
            break
        loop.episode(episode_seed)
    report = record.report(rate, loop.chunking)
    return report if gate is None else {**report, "gate": gate.report()}


@dataclass
class _Loop:
    policy: Any
    env: Any
    hz: float
    times: int
    gate: Gate | None
    chunking: Chunking
    delays: Delays
    record: Record
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def episode(self, seed: int) -> None:
        """Play one episode and record it."""
        with no_garbage_collection():  # it collects before: an observation would grow old meanwhile
            obs = self.env.reset([seed])
            if not self.record.began:
                self._prepare(obs)
            self.record.begin(seed)
            plans: list[tuple[int, int, float]] = []
            control = self._control(obs, seed, self.chunking, plans)
            try:
                control.begin()
                self._play(control, Pace(self.hz * self.times, self.clock, self.sleep))
            finally:
                control.close()
                self.record.end(control, plans)

    def _play(self, control: Control, pace: Pace) -> None:
        ended, late = False, 0.0
        while not ended and not self.record.full:
            command = control.next_action(late)
            step = self.env.step(command[None, None])
            control.observe({name: value[:, -1] for name, value in step.obs.items()})
            ended = self.record.step(step, command, control.source)
            late = pace.wait()
            self.record.late(late)
        self.record.paced_s += pace.clock() - pace.start

    def _prepare(self, obs: Mapping[str, np.ndarray]) -> None:
        """Warm up; how long decisions take then suggests when to replan."""
        control = self._control(obs, 0, replace(self.chunking, execute=1))
        try:
            ticks = math.ceil(sorted(control.warm_up())[WARM_UP * 9 // 10] * self.hz)
        finally:
            control.close()
        self.chunking = self.chunking.resolved(self.policy, ticks, self.delays.longest(self.hz))

    def _control(
        self, obs: Mapping[str, np.ndarray], seed: int, chunking: Chunking, plans: list[Any] | None = None
    ) -> Control:
        options = {"gate": self.gate, "delays": self.delays, "times": self.times, "chunking": chunking, "plans": plans}
        return Control(self.policy, obs, seed, self.clock, hz=self.hz, **options)
