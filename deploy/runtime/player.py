"""How planning and playing go together: one episode's observations, requests, chunks and actions.

Real time (`loop.py`) and the simulated clock of `noisepilot latency` both play this, so what is measured is what runs.
A tick is one period of the policy. Shapes: T observations, D elements, H horizon, A action dim.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .buffer import NONE, Buffer, Planned
from .planner import Answer, Request
from .spec import PolicyError

MODES = ("sync", "async", "rtc")
RECENT = 16
"""inferences whose consumption says how many actions the next one will cost"""
Obs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Chunking:
    """When to plan and what to do meanwhile."""

    mode: str = "sync"
    """sync: the robot waits for a chunk and plays `execute` actions of it; async: it goes on with the old chunk until
    the new one arrives; rtc: likewise, and the policy is told which actions are committed until then (real-time
    chunking, Black et al. 2025, https://arxiv.org/abs/2506.07339 and https://arxiv.org/abs/2512.05964)"""
    execute: int | None = None
    """ticks from one plan to the next; None: what the policy was made for, or fewer where its horizon would not last"""
    ensemble: float | None = None
    """m of temporal ensembling, see `Buffer`"""

    def resolved(self, policy: Any, ticks: int = 0, injected: int = 0) -> Chunking:
        """With a number for `execute`.

        Args:
            policy: its horizon and what it can do with committed actions count.
            ticks: that a chunk is thought to take; used for nothing else than the default of `execute`.
            injected: the same, of delays known beforehand: these must fit.

        Raises:
            PolicyError: if the policy cannot be played like this.
        """
        horizon, usual = policy.spec.horizon, policy.spec.n_action_steps
        if self.mode not in MODES:
            raise PolicyError(f"there is no mode '{self.mode}': modes are {', '.join(MODES)}")
        if self.mode == "rtc" and not (takes_prefix(policy) or guided(policy)):
            raise PolicyError(
                "mode rtc needs a policy that continues committed actions (trained for prefixes, max_prefix > 0, or "
                "guided): this one does neither, use mode async"
            )
        if self.ensemble is not None and (self.mode == "sync" or not self.ensemble >= 0):
            raise PolicyError(
                "ensembling averages chunks that overlap: use mode async or rtc, and a number of at least 0"
            )
        room = horizon - (0 if self.mode == "sync" else injected)
        if self.execute is None:
            lasting = horizon if self.mode == "sync" else horizon - max(ticks, injected)
            return replace(self, execute=max(1, min(usual, lasting)))
        if not 1 <= self.execute <= room:
            less = f" less a delay of {injected} ticks" if room < horizon else ""
            raise PolicyError(f"execute {self.execute} is not between 1 and the horizon {horizon}{less}: execute fewer")
        return self


def takes_prefix(policy: Any) -> int:
    """The most committed actions that the policy was trained to continue; 0: none."""
    return int(getattr(policy.spec, "max_prefix", 0))


def guided(policy: Any) -> bool:
    """Whether the policy's chain can be guided along the rest of the running chunk."""
    return bool(getattr(policy, "guided", False))


class Player:
    """One episode: what is asked when, and what is executed of the answers.

    Args:
        policy: whose `spec` says horizon and observations.
        chunking: resolved.
        obs: the first observation, name -> (1, D).
        generator: of the policy's noise.
    """

    def __init__(self, policy: Any, chunking: Chunking, obs: Obs, generator: np.random.Generator) -> None:
        assert chunking.execute is not None
        self.policy, self.chunking, self.execute, self.generator = policy, chunking, chunking.execute, generator
        self.history: deque[Obs] = deque([obs] * policy.spec.n_obs_steps, policy.spec.n_obs_steps)
        self.buffer = Buffer(chunking.ensemble)
        self.seen = 0
        """tick of the newest observation"""
        self.consumed: deque[int] = deque(maxlen=RECENT)
        """actions that were executed during recent inferences"""
        self.sent: deque[np.ndarray] = deque(maxlen=policy.spec.horizon)
        """newest actions that were executed, the newest last"""
        self.starved = self.refused = 0
        self.fault = ""
        """why something was refused, the first time"""
        self.failing = False
        """the newest answer was of no use"""
        self._asking = False
        self._next = 0

    def observe(self, obs: Obs, tick: int) -> None:
        """Take note of name -> (1, D), seen at `tick`."""
        self.history.append(obs)
        self.seen = tick

    def due(self, tick: int) -> Request | None:
        """What to ask now, if anything."""
        waits = self.chunking.mode == "sync" and self.buffer.at(tick).source != NONE
        if self._asking or waits or tick < self._next:
            return None
        self._asking = True
        lasting = max(1, self.policy.spec.horizon - max(self.consumed, default=0))  # if planning has become slower
        self._next = tick + (0 if self.chunking.mode == "sync" else min(self.execute, lasting))
        return Request(self.stacked(), self.generator, tick, self.seen, *self._committed(tick))

    def answer(self, answer: Answer, tick: int, consumed: int | None = None) -> None:
        """Splice in what came back; `consumed`: ticks that it took, where they were not played."""
        self._asking = False
        request, chunk = answer.request, answer.chunk
        self.consumed.append(tick - request.tick if consumed is None else consumed)
        self.failing = chunk is None or np.shape(chunk) != (self.policy.spec.horizon, self._dim)
        if chunk is None or self.failing or not np.isfinite(chunk).all():
            self.refuse(answer.error or "a chunk of another shape, or with numbers that are not finite")
            self._next = tick
        if chunk is None or self.failing:
            return
        if self.chunking.mode == "sync":
            self.buffer.put(chunk[: self.execute], tick)
        else:
            self.buffer.put(chunk, request.seen)

    def refuse(self, why: object) -> None:
        """Count what was of no use."""
        self.refused += 1
        self.fault = self.fault or f"{why}".partition("\n")[0] or type(why).__name__

    def action(self, tick: int) -> tuple[np.ndarray | None, int]:
        """The action (A,) of a tick, None if there is none to be had, and the number of its chunk.

        Where no chunk speaks about the tick, the action before is held, under the number NONE.
        """
        self.buffer.forget(tick)
        action, source = self.planned(tick)
        if source != NONE or self.failing:
            return action, source
        self.starved += 1
        return (self.sent[-1] if self.sent else None), NONE

    def planned(self, tick: int) -> Planned:
        """What the buffer says about a tick; of a policy that corrects each action, with the newest observation."""
        found = self.buffer.at(tick)
        if found.action is None or not getattr(self.policy, "corrects", False):
            return found
        return found._replace(action=self.policy.correct(self.stacked(), found.action))

    def executed(self, action: np.ndarray) -> None:
        """Take note of what was sent for a tick."""
        self.sent.append(action)

    def stacked(self) -> dict[str, np.ndarray]:
        """The observations that the policy looks at, name -> (T, D)."""
        return {name: np.concatenate([obs[name] for obs in self.history]) for name in self.policy.spec.observations}

    @property
    def _dim(self) -> int:
        return self.policy.spec.action["shape"][-1]

    def _committed(self, tick: int) -> tuple[np.ndarray | None, int | None]:
        # Prefix and frozen of a request: nothing in the modes that do not use them, or at an episode's start.
        stale = tick - self.seen
        if self.chunking.mode != "rtc" or not self.sent or stale > len(self.sent):  # the chunk will be over by then
            return None, None
        past = list(self.sent)[len(self.sent) - stale :]
        going = max(self.consumed, default=0)
        if guided(self.policy):
            planned = list(self.buffer.ahead(tick, self.policy.spec.horizon))
            prefix = [*past, *planned]
            return (np.stack(prefix), min(len(past) + going, len(prefix))) if prefix else (None, None)
        planned = list(self.buffer.ahead(tick, going))
        while len(planned) < going:  # beyond its end the last action is held
            planned.append(planned[-1] if planned else self.sent[-1])
        prefix = [*past, *planned][: takes_prefix(self.policy)]
        return (np.stack(prefix) if prefix else None), None
