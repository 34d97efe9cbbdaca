"""How smoothly an actor's chunks join, and how long it takes to decide: what a robot feels beside the score.

Shapes: N slots, n executed actions, A action dim.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.race import settings
from ..envs.core import Step
from ..policies.actor import Actor
from ..policies.policy import ACTION, Policy
from .evaluate import Env

ORDER = 3
"""of the difference: jerk is the third derivative of a position"""
BURSTS, CALLS = 10, 10


class SeamEnv:
    """An environment that measures the actions passing through it where one chunk follows another.

    Seam jerk is the mean absolute third difference of executed actions, as fractions of their range, over every window
    of four actions that spans a border: that of `deploy/runtime/seams.py`, for slots beside each other. Episodes that
    end within their first chunk have no border.
    """

    def __init__(self, env: Env, policy: Policy) -> None:
        self.env, self.policy = env, policy
        self.spec, self.num_envs = env.spec, env.num_envs
        self.tail = np.full((self.num_envs, ORDER, policy.spec.action.dim), np.nan)
        self.total, self.windows = 0.0, 0

    @property
    def jerk(self) -> float:
        """Per control step cubed, in ranges of the action; NaN before the first border."""
        return self.total / self.windows if self.windows else float("nan")

    def reset(self, seeds: Sequence[int], slots: Sequence[int] | None = None) -> Mapping[str, Tensor]:
        """Start episodes: nothing precedes their first chunk."""
        self.tail[slice(None) if slots is None else list(slots)] = np.nan
        return self.env.reset(seeds, slots)

    def step(self, action: Tensor) -> Step:
        """Execute (N, n, A)."""
        step = self.env.step(action)
        valid = step.valid.cpu().numpy()
        chunk = self.policy.normalizer.normalize(ACTION, action).double().cpu().numpy() / 2  # in ranges, not halves
        around = np.concatenate([self.tail, chunk], 1)
        jerk = np.abs(np.diff(around[:, : 2 * ORDER], ORDER, 1)).mean(2)
        known = np.isfinite(jerk) & valid[:, : jerk.shape[1]]
        self.total, self.windows = self.total + float(jerk[known].sum()), self.windows + int(known.sum())
        self.tail = np.where(valid.all(1)[:, None, None], around[:, -ORDER:], np.nan)
        return step


def milliseconds(actors: Mapping[str, Actor], env: Env, seed: int) -> dict[str, float]:
    """Milliseconds that one decision takes by itself, one thread, batch 1: the mean call of the best of several bursts.

    Actors take turns, so that whatever else the machine does meets them all.
    """
    first = env.reset(range(seed, seed + env.num_envs))
    best = dict.fromkeys(actors, float("inf"))
    with settings(fast_matmul=False, threads=1):
        for burst in range(1 + BURSTS):
            for name, actor in actors.items():
                obs = {k: _repeated(first[k], actor.spec.n_obs_steps) for k in actor.spec.obs}
                noise = torch.zeros(1, *actor.noise_shape, device=env.spec.device)
                started = time.perf_counter()
                for _ in range(CALLS):
                    actor.act(obs, noise).cpu()
                if burst:  # the first one fills caches
                    best[name] = min(best[name], 1e3 * (time.perf_counter() - started) / CALLS)
    return best


def _repeated(value: Tensor, times: int) -> Tensor:
    """One observation (1, T, ...), the same at every time."""
    seen = value[:1, None].expand(1, times, *value.shape[1:])
    return seen if seen.dtype == torch.uint8 else seen.float()
