"""One episode of control in any mode: observations in, one command per call; in real time, by whatever clock.

`loop.py` calls it at a fixed rate, the ROS 2 node whenever a step is due. Shapes: D elements, A action dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .buffer import NONE
from .gate import Gate
from .planner import Answer, Delays, Direct, Faults, Threaded
from .player import Chunking, Player
from .spec import PolicyError
from .upsample import between, positions

WARM_UP = 20
"""decisions made before the clock starts and left out of the latencies"""
NOISE_STREAM = 0x6E6F6973
"""keeps the policy's noise independent of the environment's own draws from the same seed; that of `eval`"""


class Control:
    """What is sent at each step of an episode.

    Args:
        policy: what acts.
        obs: the first observation, name -> (1, D).
        seed: of the policy's noise and of injected faults.
        clock: seconds; only differences matter. Modes async and rtc plan in a thread, so it must be real for them.
        hz: rate of the policy's actions.
        chunking: resolved; None: sync, with the policy's own number of actions.
        gate: what every command passes; also what the policy refuses to act on is then its business.
        delays: faults to inject.
        times: commands per action, see `upsample.py`.
        plans: gets a row for every chunk that arrived: tick, actions consumed meanwhile, seconds in the policy.
    """

    def __init__(
        self,
        policy: Any,
        obs: Mapping[str, np.ndarray],
        seed: int,
        clock: Callable[[], float],
        *,
        hz: float,
        chunking: Chunking | None = None,
        gate: Gate | None = None,
        delays: Delays | None = None,
        times: int = 1,
        plans: list[tuple[int, int, float]] | None = None,
    ) -> None:
        chunking = chunking or Chunking().resolved(policy)
        self.clock, self.hz, self.gate, self.times, self.plans = clock, hz, gate, times, plans
        self.mode = chunking.mode
        self.player = Player(policy, chunking, obs, np.random.default_rng([NOISE_STREAM, seed]))
        self.planner = (Direct if self.mode == "sync" else Threaded)(policy, clock)
        self.faults = Faults(delays or Delays(), hz, seed)
        self.moving = positions(policy.spec.action)
        self.tick, self.source, self.held = 0, 0, 0
        """periods of the policy so far; number of the newest command's chunk; commands that were not finite"""
        self.starving = 0
        """ticks without a plan until now, in a row"""
        self.seen_at = clock()
        self._begun = False
        self._commands: list[np.ndarray | None] = []
        if gate is not None:
            gate.start()

    def begin(self) -> None:
        """Wait for the first plan: the robot stands still until it is there. `next_action` does it too."""
        self._begun = True
        request = self.player.due(0)
        assert request is not None
        delay = self.faults.delay()
        self.planner.start(request, delay)
        answer = self.planner.wait()
        self._take(answer, max(delay, math.ceil(answer.seconds * self.hz)))

    def observe(self, obs: Mapping[str, np.ndarray]) -> None:
        """Take note of name -> (1, D), seen after the newest command; between two actions it is left out."""
        if not self._commands and not self.faults.dropped():
            self.player.observe(obs, self.tick)
            self.seen_at = self.clock()

    def next_action(self, late_s: float = 0.0) -> np.ndarray:
        """The command (A,) to execute now: what the gate makes of it, or else the one before if it is not finite.

        `late_s`: by how much the deadline before was missed.

        Raises:
            PolicyError: without a gate, if the first action is not finite, or in mode sync the policy refuses. In mode
                sync what else the policy raises comes through too; the next call goes on.
        """
        if not self._begun:
            self.begin()
        first = not self._commands
        if first:
            self._plan()
            self._commands = self._of_this_tick()
            self.tick += 1
        sent = self._send(self._commands.pop(0), late_s)
        if first:
            self.player.executed(sent)
        return sent

    def close(self) -> None:
        """End the planning thread."""
        self.planner.close()

    def warm_up(self) -> list[float]:
        """Decide a few times without effect: first calls allocate. Returns the seconds of each."""
        policy, seconds, noise = self.player.policy, [], np.zeros(self.player.policy.spec.noise_shape, np.float32)
        for _ in range(WARM_UP):
            started = self.clock()
            policy.act(self.player.stacked(), noise)
            seconds.append(self.clock() - started)
        return seconds

    def _of_this_tick(self) -> list[np.ndarray | None]:
        try:
            action, self.source = self.player.action(self.tick)
            following = self.player.planned(self.tick + 1).action if self.times > 1 else None
        except PolicyError as error:
            if self._strict:
                raise
            self.player.refuse(error)
            action = following = None
        self.starving = self.starving + 1 if self.source == NONE else 0
        if action is None:
            return [None] * self.times
        return [*between(action, following, self.times, self.moving)]

    def _plan(self) -> None:
        self._poll()
        if request := self.player.due(self.tick):
            self.planner.start(request, self.faults.delay())
            self._poll()  # without a delay a direct question is answered at once

    def _poll(self) -> None:
        if answer := self.planner.poll(self.tick):
            self._take(answer)

    def _take(self, answer: Answer, awaited: int | None = None) -> None:
        self.player.answer(answer, self.tick, awaited)
        foreign = self.mode == "sync" and not isinstance(answer.error, PolicyError)
        if answer.error is not None and (foreign or self._strict or (awaited is not None and self.gate is None)):
            raise answer.error
        if self.plans is not None:
            self.plans.append((self.tick, self.player.consumed[-1], answer.seconds))

    @property
    def _strict(self) -> bool:
        return self.gate is None and self.mode == "sync"

    def _send(self, action: np.ndarray | None, late_s: float) -> np.ndarray:
        if self.gate is not None:  # of an observation that is not finite, say: no reason to fall silent
            age = self.clock() - self.seen_at
            return self.gate.step(action, self.player.history[-1], age, late_s, self.starving / self.hz).action
        if action is not None:
            return action
        if not self.player.sent:
            raise PolicyError("the first action is not finite and there is none before it to hold: check the policy")
        self.held += 1
        return self.player.sent[-1]
