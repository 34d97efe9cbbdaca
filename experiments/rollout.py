"""Experience for on-policy learning: D decisions in every slot, in tensors that are allocated once.

Shapes: D decisions, N slots, n executed actions, T observations.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..algos.returns import Ends
from ..algos.rollout import Rollout, RolloutBuffer
from ..envs.vector import VectorEnv
from .stepper import Act, Decision, EpisodeStats, Stepper


class Collector(Stepper):
    """Gathers rollouts; the next one goes on where the last one stopped."""

    def __init__(self, env: VectorEnv, n_obs_steps: int, decisions: int, seed: int) -> None:
        super().__init__(env, n_obs_steps, seed)
        self.buffer = RolloutBuffer(decisions)

    def collect(self, act: Act, *, fresh: bool = False) -> tuple[Rollout, EpisodeStats, float]:
        """One rollout, the episodes that ended in it, and the seconds it took."""
        started = time.perf_counter()
        if fresh:
            self.start_over()
        stats = EpisodeStats()
        for d in range(self.buffer.decisions):
            self.buffer.put(d, _columns(self.decide(act, stats)))
        return self._rollout(), stats, time.perf_counter() - started

    def _rollout(self) -> Rollout:
        tensors = self.buffer.tensors
        ends = Ends(tensors["terminated"], tensors["truncated"])
        return Rollout(self.buffer.group("extra/"), self.buffer.group("next/"), tensors["reward"], ends)


def _columns(decision: Decision) -> dict[str, Tensor]:
    step = decision.step
    return {
        **{f"extra/{name}": value for name, value in decision.extras.items()},
        **{f"next/{name}": value for name, value in decision.next_obs.items()},
        "reward": torch.where(step.valid, step.reward, 0.0).sum(1),
        "terminated": step.terminated.any(1),
        "truncated": step.truncated.any(1),
    }
