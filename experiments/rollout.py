"""Experience for on-policy learning: whole chunks, explicit resets, every episode counted once.

Shapes: D decisions, N slots, n executed actions, T observations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..algos.returns import Ends
from ..algos.rollout import Rollout, RolloutBuffer
from ..envs.core import Step
from ..envs.seeds import train_seeds
from ..envs.vector import TensorEnv
from .history import History

Act = Callable[[dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
"""observations name -> (N, T, ...) to (actions (N, n, A), extras name -> (N, ...))"""


@dataclass
class EpisodeStats:
    """Episodes that ended in one rollout."""

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Means in Stable-Baselines3's dialect; empty where no episode ended."""
        if not self.returns:
            return {}
        found = {
            "rollout/ep_rew_mean": float(np.mean(self.returns)),
            "rollout/ep_len_mean": float(np.mean(self.lengths)),
            "rollout/episodes": float(len(self.returns)),
        }
        return found | ({"rollout/success_rate": float(np.mean(self.successes))} if self.successes else {})


class Collector:
    """Steps an environment with an exploring policy and remembers where every slot is between rollouts."""

    def __init__(self, env: TensorEnv, n_obs_steps: int, decisions: int, seed: int) -> None:
        self.env, self.seed = env, seed
        self.buffer = RolloutBuffer(decisions)
        self.history = History(n_obs_steps)
        self.episode = np.zeros(env.num_envs, np.int64)
        self.env_steps = 0
        self._start_over(list(range(env.num_envs)))

    def collect(self, act: Act, *, fresh: bool = False) -> tuple[Rollout, EpisodeStats, dict[str, float]]:
        """One rollout, the episodes that ended in it, and seconds spent in the environment and in sampling."""
        if fresh:
            self._start_over(list(range(self.env.num_envs)))
        stats, seconds = EpisodeStats(), {"time/env_s": 0.0, "time/sampling_s": 0.0}
        for d in range(self.buffer.decisions):
            started = time.perf_counter()
            action, extras = act(self.history.obs)
            acted = time.perf_counter()
            step = self.env.step(action)
            self.history.push_chunk(step)
            seconds["time/sampling_s"] += acted - started
            self.buffer.put(d, _columns(extras, self.history.obs, step))
            self._count(step, stats)
            ended = step.ended.nonzero().flatten().tolist()
            if ended:
                self._start_over(ended)
            seconds["time/env_s"] += time.perf_counter() - acted
        return self._rollout(), stats, seconds

    def _rollout(self) -> Rollout:
        tensors = self.buffer.tensors
        ends = Ends(tensors["terminated"], tensors["truncated"])
        return Rollout(self.buffer.group("extra/"), self.buffer.group("next/"), tensors["reward"], ends)

    def _start_over(self, slots: list[int]) -> None:
        seeds = [train_seeds(self.seed, slot, int(self.episode[slot])) for slot in slots]
        everywhere = len(slots) == self.env.num_envs
        obs = self.env.reset(seeds, None if everywhere else slots)
        self.history.reset(obs, None if everywhere else slots)
        self.episode[slots] += 1
        if everywhere:
            self.returns, self.length = np.zeros(self.env.num_envs), np.zeros(self.env.num_envs, np.int64)
            self.success = np.zeros(self.env.num_envs, bool)
        self.returns[slots], self.length[slots], self.success[slots] = 0.0, 0, False

    def _count(self, step: Step, stats: EpisodeStats) -> None:
        valid, reward = step.valid.cpu().numpy(), step.reward.cpu().numpy()
        self.env_steps += int(valid.sum())
        self.returns += np.where(valid, reward, 0.0).sum(1)
        self.length += valid.sum(1)
        success = step.signals.get("success")
        if success is not None:
            self.success |= ((success.cpu().numpy() > 0) & valid).any(1)
        for slot in np.flatnonzero(step.ended.cpu().numpy()):
            stats.returns.append(float(self.returns[slot]))
            stats.lengths.append(int(self.length[slot]))
            if success is not None:
                stats.successes.append(float(self.success[slot]))

    def tree(self) -> dict[str, Any]:
        """Everything a bit-equal continuation needs."""
        return {
            "env": self.env.get_state(),
            "history": self.history.obs,
            "episode": self.episode,
            "returns": self.returns,
            "length": self.length,
            "success": self.success,
            "env_steps": self.env_steps,
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        self.env.set_state(tree["env"])
        self.history.obs = {k: v.to(self.env.device) for k, v in tree["history"].items()}
        self.episode, self.returns, self.length = tree["episode"], tree["returns"], tree["length"]
        self.success, self.env_steps = tree["success"], tree["env_steps"]


def _columns(extras: dict[str, Tensor], next_obs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
    return {
        **{f"extra/{name}": value for name, value in extras.items()},
        **{f"next/{name}": value for name, value in next_obs.items()},
        "reward": torch.where(step.valid, step.reward, 0.0).sum(1),
        "terminated": step.terminated.any(1),
        "truncated": step.truncated.any(1),
    }
