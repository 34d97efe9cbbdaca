"""Episodes under delay on a simulated clock: no threads, no sleeping, as fast as the simulator goes.

A chunk becomes visible so many ticks after its request as the injected delay has; planning and splicing are those of
the control loop (`deploy/runtime/player.py`). While the robot waits, the simulator goes on. N slots, A action dim.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..deploy.runtime import Chunking, Delays, PolicyError
from ..deploy.runtime.planner import Answer, Faults, Request, ask, words
from ..deploy.runtime.player import Player
from ..deploy.runtime.seams import Seams, action_range
from ..envs.core import Core, Step
from ..envs.seeds import noise_generator
from ..errors import UserError
from .ledger import Ledger


@dataclass(frozen=True, eq=False)
class Played:
    """What came of it."""

    ledger: Ledger
    starved: float
    """share of the ticks at which the action before was held for want of a plan"""
    refused: int
    """chunks that were not finite, or that the policy refused to make"""
    consumed: int
    """most ticks that passed during one inference"""
    seams: int
    jerk: Mapping[str, float | None]
    """mean at `seams` and `inside` chunks, see `deploy/runtime/seams.py`"""


def play_delayed(
    policy: Any, env: Core, seeds: Sequence[int], *, hz: float, chunking: Chunking, delays: Delays
) -> Played:
    """One episode per seed, each once, in as many slots as the environment has.

    Starts, noise and faults of an episode depend on its seed alone, so episodes of two calls can be paired.

    Args:
        policy: as the control loop takes it; asked for all slots at once where that can be.
        env: N slots.
        seeds: one per episode.
        hz: ticks per second, which makes ticks of milliseconds.
        chunking: mode, how many actions are executed, ensembling.
        delays: what is injected.

    Raises:
        UserError: if the policy cannot be played like this, or refuses its first observation.
    """
    try:
        chunking = chunking.resolved(policy, injected=delays.longest(hz))
        return _Field(policy, env, list(seeds), hz, chunking, delays).play()
    except PolicyError as error:
        raise UserError(str(error)) from None


class _Slot:
    """One episode as it is played."""

    def __init__(self, policy: Any, chunking: Chunking, faults: Faults, obs: Mapping[str, Any], seed: int) -> None:
        self.player, self.faults, self.seed = Player(policy, chunking, obs, noise_generator(seed)), faults, seed
        self.tick, self.waiting = 0, None
        self.returns, self.goal = 0.0, -1

    def request(self) -> Request | None:
        self.deliver()
        return self.player.due(self.tick)

    def take(self, request: Request, chunk: np.ndarray | None, error: Exception | None) -> None:
        delay = self.faults.delay()
        if self.tick:
            self.waiting = Answer(request, chunk, error, self.tick + delay, 0.0)
            self.deliver()
        else:  # the robot stands still until its first plan is there
            if error is not None:
                raise error
            self.player.answer(Answer(request, chunk, error, 0, 0.0), 0, delay)

    def deliver(self) -> None:
        if self.waiting is not None and self.tick >= self.waiting.ready:
            answer, self.waiting = self.waiting, None
            self.player.answer(answer, self.tick)


class _Field:
    def __init__(self, policy: Any, env: Core, seeds: list[int], hz: float, chunking: Chunking, delays: Delays) -> None:
        self.policy, self.env, self.seeds, self.hz = policy, env, seeds, hz
        self.chunking, self.delays = chunking, delays
        self.waiting = list(seeds)
        self.done: dict[int, tuple[_Slot, int]] = {}
        self.seams = [Seams(action_range(policy.spec.action)) for _ in range(env.num_envs)]
        self.voided = 0

    def play(self) -> Played:
        started = time.perf_counter()
        count = self.env.num_envs
        first, self.waiting = self.waiting[:count], self.waiting[count:]
        obs = self.env.reset(first + [first[0]] * (count - len(first)))  # slots without an episode must be somewhere
        self.slots: dict[int, _Slot] = {}
        self._begin(list(range(len(first))), first, obs)
        while self.slots:
            self._plan()
            ended = self._record(self.env.step(self._actions()))
            free, seeds = ended[: len(self.waiting)], self.waiting[: len(ended)]
            self.waiting = self.waiting[len(free) :]
            if free:
                self._begin(free, seeds, self.env.reset(seeds, free))
        return self._played(time.perf_counter() - started)

    def _begin(self, free: list[int], seeds: list[int], obs: Mapping[str, np.ndarray]) -> None:
        for i, (n, seed) in enumerate(zip(free, seeds, strict=True)):
            faults = Faults(self.delays, self.hz, seed)
            seen = {name: value[i : i + 1] for name, value in obs.items()}
            self.slots[n] = _Slot(self.policy, self.chunking, faults, seen, seed)
            self.seams[n].start()

    def _plan(self) -> None:
        due = [(slot, request) for slot in self.slots.values() if (request := slot.request()) is not None]
        answers = decide(self.policy, [request for _, request in due])
        for (slot, request), (chunk, error) in zip(due, answers, strict=True):
            slot.take(request, chunk, error)

    def _actions(self) -> np.ndarray:
        actions = np.zeros((self.env.num_envs, 1, *self.env.spec.action.shape), np.float32)
        for n, slot in self.slots.items():
            action, source = slot.player.action(slot.tick)
            if action is None and not slot.player.sent:
                raise PolicyError("the first action is not finite and there is none before it to hold")
            actions[n, 0] = slot.player.sent[-1] if action is None else action
            slot.player.executed(actions[n, 0].copy())
            self.seams[n].push(actions[n, 0], source)
        return actions

    def _record(self, step: Step) -> list[int]:
        """Note what happened; returns the slots whose episodes ended."""
        ended, void = step.ended, step.void
        for n in (over := [n for n in self.slots if void[n]]):  # lost with its worker: begins again
            self.waiting.append(self.slots.pop(n).seed)
        self.voided += len(over)
        for n, slot in list(self.slots.items()):
            slot.tick += 1
            slot.returns += float(step.reward[n, 0])
            if slot.goal < 0 and "success" in step.signals and step.signals["success"][n, 0] > 0:
                slot.goal = slot.tick
            if not slot.faults.dropped():
                slot.player.observe({name: value[n] for name, value in step.obs.items()}, slot.tick)
            if ended[n]:
                self.done[slot.seed] = (self.slots.pop(n), slot.tick)
                over.append(n)
        return over

    def _played(self, wall_s: float) -> Played:
        done = [self.done[seed][0] for seed in self.seeds]
        length = np.array([self.done[seed][1] for seed in self.seeds])
        goal = np.array([slot.goal for slot in done])
        known, hz = "success" in self.env.spec.signals, self.env.spec.control_hz or self.hz
        ledger = Ledger(
            env=self.env.spec.id,
            env_kwargs=dict(self.env.spec.kwargs),
            reference=self.env.spec.reference,
            seed=np.array(self.seeds, dtype=np.int64),
            returns=np.array([slot.returns for slot in done]),
            length=length,
            success=(goal >= 0).astype(float) if known else np.full(len(done), np.nan),
            time_s=length / hz,
            goal_s=np.where(goal >= 0, goal / hz, np.nan),
            n_action_steps=self.chunking.execute or 0,
            wall_s=wall_s,
            voided=self.voided,
        )
        total = Seams.together(self.seams)
        return Played(
            ledger=ledger,
            starved=sum(slot.player.starved for slot in done) / int(length.sum()),
            refused=sum(slot.player.refused for slot in done),
            consumed=max(max(slot.player.consumed) for slot in done),
            seams=total.count,
            jerk=total.jerk(),
        )


def decide(policy: Any, requests: Sequence[Request]) -> list[tuple[np.ndarray | None, Exception | None]]:
    """A chunk, or why there is none, per request; those with prefixes of one length in one call."""
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault((request.prefix is not None and len(request.prefix), request.frozen), []).append(i)
    found: dict[int, tuple[np.ndarray | None, Exception | None]] = {}
    for rows in groups.values():
        found.update(zip(rows, _together(policy, [requests[i] for i in rows]), strict=True))
    return [found[i] for i in range(len(requests))]


def _together(policy: Any, requests: Sequence[Request]) -> list[tuple[np.ndarray | None, Exception | None]]:
    if len(requests) == 1:
        return [_caught(policy, requests[0])]
    obs = {name: np.stack([request.obs[name] for request in requests]) for name in requests[0].obs}
    shape = policy.spec.noise_shape
    noise = np.stack([request.generator.standard_normal(shape, np.float32) for request in requests])
    prefix = None if requests[0].prefix is None else np.stack([np.asarray(request.prefix) for request in requests])
    try:
        return [(chunk, None) for chunk in policy.act(obs, noise, **words(prefix, requests[0].frozen))]
    except PolicyError:  # one bad observation spoils the batch
        return [_caught(policy, request, row) for request, row in zip(requests, noise, strict=True)]


def _caught(policy: Any, request: Request, noise: Any = None) -> tuple[np.ndarray | None, Exception | None]:
    try:
        return ask(policy, request, noise), None
    except PolicyError as error:
        return None, error
