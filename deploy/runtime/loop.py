"""A control loop at a fixed rate: observe, plan, play; planning waits for nobody or goes on in a thread.

Each step must end before its deadline (`pace.py`); garbage collection is off while the clock runs. `player.py` says
what the modes are. Shapes: T observations, D elements, H horizon, A action dim; one environment.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .buffer import NONE
from .gate import Gate
from .pace import Pace, no_interruptions
from .planner import Answer, Delays, Direct, Faults, Threaded
from .player import Chunking, Player
from .record import Record
from .spec import PolicyError
from .upsample import between, positions, ratio

WARM_UP = 20
"""decisions made before the clock starts and left out of the latencies"""
NOISE_STREAM = 0x6E6F6973
"""keeps the policy's noise independent of the environment's own draws from the same seed; that of `eval`"""


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
        make), `seams` and `jerk` (`seams.py`), `consumed_max`, one entry per episode; with a gate `gate`, its report.

    Raises:
        PolicyError: if observations do not fit, the very first action is not finite, the gate has another rate, or
            the policy cannot be played in this mode.
    """
    rate = hz if controller_hz is None else controller_hz
    if hz <= 0 or episodes < 1:
        raise PolicyError(f"hz {hz} and episodes {episodes} must be positive")
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
        obs = self.env.reset([seed])
        self.seen_at, self.late = self.clock(), 0.0
        if self.gate is not None:
            self.gate.start()
        if not self.record.began:
            self._warm_up(obs)
        self.record.begin(seed)
        self.faults = Faults(self.delays, self.hz, seed)
        self.moving = positions(self.policy.spec.action)
        self.player = Player(self.policy, self.chunking, obs, np.random.default_rng([NOISE_STREAM, seed]))
        self.planner = (Direct if self.chunking.mode == "sync" else Threaded)(self.policy, self.clock)
        try:
            with no_interruptions():
                self._first_plan()
                self._play(Pace(self.hz * self.times, self.clock, self.sleep))
        finally:
            self.planner.close()
            self.record.end(self.player)

    def _play(self, pace: Pace) -> None:
        tick, ended = 0, False
        while not ended and not self.record.full:
            self._plan(tick)
            commands, source = self._commands(tick)
            for i, command in enumerate(commands):
                sent = self._send(command)
                if i == 0:
                    self.player.executed(sent)
                step = self.env.step(sent[None, None])
                ended = self.record.step(step, sent, source)
                if i == self.times - 1 and not self.faults.dropped():
                    self.player.observe({name: value[:, -1] for name, value in step.obs.items()}, tick + 1)
                    self.seen_at = self.clock()
                self.late = pace.wait()
                self.record.late(self.late)
                if ended or self.record.full:
                    break
            tick += 1
        self.record.paced_s += pace.clock() - pace.start

    def _commands(self, tick: int) -> tuple[Sequence[np.ndarray | None], int]:
        """What is sent during a tick, `times` commands, and the number of their chunk."""
        try:
            action, source = self.player.action(tick)
            following = self.player.corrected(self.player.buffer.at(tick + 1).action) if self.times > 1 else None
        except PolicyError:  # of an observation that is not finite, say: no reason for a gate to fall silent
            if self.gate is None:
                raise
            return [None] * self.times, NONE
        if action is None:
            return [None] * self.times, source
        return between(action, following, self.times, self.moving), source

    def _first_plan(self) -> None:
        # The robot stands still until its first plan is there.
        request = self.player.due(0)
        assert request is not None
        delay = self.faults.delay()
        self.planner.start(request, delay)
        answer = self.planner.wait()
        self._take(answer, 0, max(delay, math.ceil(answer.seconds * self.hz)))

    def _plan(self, tick: int) -> None:
        self._poll(tick)
        if request := self.player.due(tick):
            self.planner.start(request, self.faults.delay())
            self._poll(tick)  # without a delay a direct question is answered at once

    def _poll(self, tick: int) -> None:
        if answer := self.planner.poll(tick):
            self._take(answer, tick)

    def _take(self, answer: Answer, tick: int, consumed: int | None = None) -> None:
        first = consumed is not None
        if answer.error is not None and self.gate is None and (first or self.chunking.mode == "sync"):
            raise answer.error
        self.player.answer(answer, tick, consumed)
        self.record.plan(tick, self.player.consumed[-1], answer.seconds)

    def _send(self, action: np.ndarray | None) -> np.ndarray:
        if self.gate is not None:  # of an observation that is not finite, say: no reason to fall silent
            age = self.clock() - self.seen_at
            return self.gate.step(action, self.player.history[-1], age, self.late).action
        if action is not None:
            return action
        if not self.player.sent:
            raise PolicyError("the first action is not finite and there is none before it to hold: check the policy")
        self.record.held += 1
        return self.player.sent[-1]

    def _warm_up(self, obs: Mapping[str, np.ndarray]) -> None:
        """Decide a few times without effect: first calls allocate. How long that takes suggests when to replan."""
        seconds, noise = [], np.zeros(self.policy.spec.noise_shape, np.float32)
        player = Player(self.policy, replace(self.chunking, execute=1), obs, np.random.default_rng())
        for _ in range(WARM_UP):
            started = self.clock()
            self.policy.act(player.stacked(), noise)
            seconds.append(self.clock() - started)
        ticks = math.ceil(sorted(seconds)[WARM_UP * 9 // 10] * self.hz)
        self.chunking = self.chunking.resolved(self.policy, ticks, self.delays.longest(self.hz))
