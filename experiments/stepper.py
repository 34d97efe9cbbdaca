"""One decision at a time in every slot: explicit resets, every episode counted once, seconds kept apart.

What on-policy and off-policy loops share. Shapes: N slots, n executed actions, T observations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs.core import State, Step
from ..envs.history import History
from ..envs.seeds import train_seeds
from ..envs.vector import TensorEnv, VectorEnv
from ..errors import UserError

Act = Callable[[dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
"""observations name -> (N, T, ...) to (actions (N, n, A), extras name -> (N, ...))"""


@dataclass
class EpisodeStats:
    """Episodes that ended in one iteration."""

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    voided: int = 0
    """lost with their worker: they are in none of the above"""

    def metrics(self) -> dict[str, float]:
        """Means in Stable-Baselines3's dialect; empty where no episode ended."""
        voided = {"rollout/voided": float(self.voided)} if self.voided else {}
        if not self.returns:
            return voided
        found = voided | {
            "rollout/ep_rew_mean": float(np.mean(self.returns)),
            "rollout/ep_len_mean": float(np.mean(self.lengths)),
            "rollout/episodes": float(len(self.returns)),
        }
        return found | ({"rollout/success_rate": float(np.mean(self.successes))} if self.successes else {})


@dataclass(frozen=True)
class Decision:
    """What one decision in every slot led to."""

    obs: dict[str, Tensor]
    """name -> (N, T, ...): what was acted on"""
    extras: dict[str, Tensor]
    """name -> (N, ...): what `act` returned beside the action"""
    step: Step
    next_obs: dict[str, Tensor]
    """name -> (N, T, ...): what truly followed, also at the end of an episode"""


class TimedEnv(TensorEnv):
    """An environment that adds up the seconds spent in it.

    Whatever an algorithm puts around it (a frozen policy whose noise or action is changed) counts as sampling.
    """

    def __init__(self, env: TensorEnv) -> None:
        super().__init__(env.core, env.device)
        self.seconds = 0.0

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, Tensor]:
        """Start episodes."""
        started = time.perf_counter()
        obs = super().reset(seeds, slots, state)
        self.seconds += time.perf_counter() - started
        return obs

    def step(self, action: Tensor) -> Step:
        """Execute a chunk.

        Raises:
            UserError: for actions that are not finite.
        """
        action = action.detach().cpu()  # waits for the device that computes it: that time is sampling's
        if not bool(torch.isfinite(action).all()):
            raise UserError("training diverged (an action is not finite): lower the learning rates, or clip gradients")
        started = time.perf_counter()
        step = super().step(action)
        self.seconds += time.perf_counter() - started
        return step


class Stepper:
    """Steps an environment with an exploring actor and remembers where every slot is.

    Args:
        env: N slots, perhaps with a frozen policy inside.
        n_obs_steps: T.
        seed: of the run; every episode's seed follows from it.
    """

    def __init__(self, env: VectorEnv, n_obs_steps: int, seed: int) -> None:
        self.env, self.seed = env, seed
        self.history = History(n_obs_steps)
        self.episode = np.zeros(env.num_envs, np.int64)
        self.env_steps = 0
        self.start_over()

    def decide(self, act: Act, stats: EpisodeStats) -> Decision:
        """One decision in every slot; slots whose episode ended start the next one.

        Raises:
            UserError: for a reward that is not finite.
        """
        obs = self.history.obs
        action, extras = act(obs)
        step = self.env.step(action)
        self.history.push_chunk(step)
        decision = Decision(obs, extras, step, self.history.obs)
        ended = self._count(step, stats)
        if ended:
            self.start_over(ended)
        return decision

    def start_over(self, slots: list[int] | None = None) -> None:
        """Start the next episode in `slots`; None: in all."""
        chosen = list(range(self.env.num_envs)) if slots is None else slots
        seeds = [train_seeds(self.seed, slot, int(self.episode[slot])) for slot in chosen]
        everywhere = len(chosen) == self.env.num_envs
        obs = self.env.reset(seeds, None if everywhere else chosen)
        self.history.reset(obs, None if everywhere else chosen)
        self.episode[chosen] += 1
        if everywhere:
            self.returns, self.length = np.zeros(self.env.num_envs), np.zeros(self.env.num_envs, np.int64)
            self.success = np.zeros(self.env.num_envs, bool)
        self.returns[chosen], self.length[chosen], self.success[chosen] = 0.0, 0, False

    def _count(self, step: Step, stats: EpisodeStats) -> list[int]:
        """Add up rewards; returns the slots whose episode ended."""
        valid, reward = step.valid.cpu().numpy(), step.reward.cpu().numpy()
        if not np.isfinite(reward[valid]).all():
            raise UserError(f"{self.env.spec.id} returned a reward that is not finite: check the environment")
        self.env_steps += int(valid.sum())
        self.returns += np.where(valid, reward, 0.0).sum(1)
        self.length += valid.sum(1)
        success = step.signals.get("success")
        if success is not None:
            self.success |= ((success.cpu().numpy() > 0) & valid).any(1)
        ended, void = np.flatnonzero(step.ended.cpu().numpy()).tolist(), step.void.cpu().numpy()
        stats.voided += int(void.sum())
        for slot in ended:
            if void[slot]:
                continue
            stats.returns.append(float(self.returns[slot]))
            stats.lengths.append(int(self.length[slot]))
            if success is not None:
                stats.successes.append(float(self.success[slot]))
        return ended

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
        self.history.obs = {k: v.to(torch.device(self.env.spec.device)) for k, v in tree["history"].items()}
        self.episode, self.returns, self.length = tree["episode"], tree["returns"], tree["length"]
        self.success, self.env_steps = tree["success"], tree["env_steps"]
