"""Evaluation: a fixed list of seeds, every episode run to its end and counted once.

An episode's start and its noise are fixed by its seed alone, so the ledger does not depend on the number
of slots or on which slot took which seed (up to the rounding of batched matrix products), and two policies
can be compared episode by episode. N slots, n executed actions, K denoising steps, H horizon, A action dim.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..envs.core import Step
from ..envs.history import History
from ..envs.seeds import noise_generator
from ..errors import UserError
from ..policies.actor import Actor, Stateful
from ..policies.policy import Policy
from ..policies.storage import NamedActor, sampler_of
from ..spec import EnvSpec
from .ledger import Ledger


@runtime_checkable
class Env(Protocol):
    """The part of a vector environment that evaluation drives; `envs/core.py` explains a Step."""

    spec: EnvSpec
    num_envs: int

    def reset(self, seeds: Sequence[int], slots: Sequence[int] | None = None) -> Mapping[str, Tensor]:
        """Start episodes in `slots`, one seed each."""
        ...

    def step(self, action: Tensor) -> Step:
        """Execute (N, n, A)."""
        ...


def evaluate(
    actor: Actor,
    env: Env,
    seeds: Iterable[int],
    *,
    n_action_steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ledger:
    """Run one episode per seed and record it.

    Args:
        actor: the policy, on the device of the environment's tensors.
        env: N slots; they take seeds from a queue as they become free.
        seeds: one per episode, each once.
        n_action_steps: actions executed per decision; None: what the policy was made for.
        progress: called with (episodes finished, episodes in all) after every decision.

    Raises:
        UserError: for no or repeated seeds, or a policy made for other observations or actions.
    """
    seeds = _checked(seeds)
    actor.spec.check_env(env.spec)
    n = n_action_steps or actor.spec.n_action_steps
    if n > actor.spec.horizon:
        raise UserError(f"n_action_steps {n} exceeds the policy's horizon {actor.spec.horizon}: execute fewer")
    started = time.perf_counter()
    episodes = _Episodes(seeds, env)
    history = History(actor.spec.n_obs_steps)
    history.reset(env.reset(episodes.first_seeds()))
    memory = actor if isinstance(actor, Stateful) else None
    if memory is not None:
        memory.reset(None)
    while episodes.running:
        due = memory.due() if memory is not None else None
        noise = torch.from_numpy(episodes.noise(actor.noise_shape, due)).to(env.spec.device)
        with torch.no_grad():
            action = actor.act(history.obs, noise=noise)[:, :n]
        step = env.step(action)
        history.push_chunk(step)
        free = episodes.record(step)
        if free:
            history.reset(env.reset(episodes.take(free), free), free)
            if memory is not None:
                memory.reset(free)
        if progress is not None:
            progress(episodes.finished, len(seeds))
    return episodes.ledger(n_action_steps=n, wall_s=time.perf_counter() - started)


def of_policy(ledger: Ledger, policy: NamedActor, name: str) -> Ledger:
    """The same ledger, saying which actor it measured and how that walked its chain."""
    sampler = sampler_of(policy)
    words = [] if isinstance(policy, Policy) else [type(policy).__name__.lower()]
    words += [f"{sampler.steps} steps, eta {sampler.eta:g}"] if sampler else []
    deterministic = sampler.deterministic if sampler else policy.noise_shape[0] == 1
    return replace(
        ledger, policy=name, policy_hash=policy.hash(), sampler=", ".join(words), deterministic=deterministic
    )


class _Episodes:
    """Which slot runs which episode, and what each episode has earned so far."""

    def __init__(self, seeds: list[int], env: Env) -> None:
        self.seeds = seeds
        self.spec = env.spec
        self.row = np.full(env.num_envs, -1)  # episode of a slot; -1: idle
        self.row[: len(seeds)] = np.arange(min(len(seeds), env.num_envs))
        self.waiting = list(range(min(len(seeds), env.num_envs), len(seeds)))
        self.voided = 0
        self.finished = 0
        self.rng: dict[int, np.random.Generator] = {}  # by episode
        self.returns = np.zeros(len(seeds))
        self.length = np.zeros(len(seeds), dtype=np.int64)
        self.goal = np.full(len(seeds), -1)  # environment steps until success was first raised
        self.peaks = {name: np.full(len(seeds), -np.inf) for name in env.spec.signals if name != "success"}

    @property
    def running(self) -> bool:
        return self.finished < len(self.seeds)

    def first_seeds(self) -> list[int]:
        # Slots without an episode are reset too (a slot must be somewhere) and then ignored.
        return [self.seeds[max(row, 0)] for row in self.row]

    def take(self, free: list[int]) -> list[int]:
        """Seeds of the episodes that start in the `free` slots."""
        rows, self.waiting = self.waiting[: len(free)], self.waiting[len(free) :]
        self.row[free] = rows
        return [self.seeds[row] for row in rows]

    def noise(self, shape: tuple[int, ...], due: Tensor | None = None) -> np.ndarray:
        """(N, K+1, H, A) float32, every running episode that is `due` from its own generator; other slots get zeros."""
        noise = np.zeros((len(self.row), *shape), dtype=np.float32)
        for slot in np.flatnonzero((self.row >= 0) & (True if due is None else _numpy(due))):
            row = int(self.row[slot])
            if row not in self.rng:
                self.rng[row] = noise_generator(self.seeds[row])
            self.rng[row].standard_normal(out=noise[slot], dtype=np.float32)
        return noise

    def record(self, step: Step) -> list[int]:
        """Add a step's rewards; returns the slots that shall start the next episodes."""
        slots = np.flatnonzero(self.row >= 0)
        rows = self.row[slots]
        valid = _numpy(step.valid)[slots]
        if "success" in step.signals:
            raised = (_numpy(step.signals["success"])[slots] > 0) & valid
            fresh = raised.any(1) & (self.goal[rows] < 0)
            self.goal[rows[fresh]] = (self.length[rows] + raised.argmax(1) + 1)[fresh]
        for name, peak in self.peaks.items():
            seen = np.where(valid, _numpy(step.signals[name])[slots].astype(float), -np.inf)
            peak[rows] = np.maximum(peak[rows], seen.max(1))
        reward = np.where(valid, _numpy(step.reward)[slots].astype(float), 0.0)
        if not np.isfinite(reward).all():
            raise UserError(f"{self.spec.id} returned a reward that is not finite: check the environment")
        self.returns[rows] += reward.sum(1)
        self.length[rows] += valid.sum(1)
        ended, void = slots[_numpy(step.ended)[slots]], slots[_numpy(step.void)[slots]]
        for row in self.row[ended]:
            del self.rng[int(row)]
        self._forget(self.row[void])
        self.row[ended] = -1
        self.finished += len(ended) - len(void)
        return ended[: len(self.waiting)].tolist()

    def _forget(self, rows: np.ndarray) -> None:
        """Episodes that were lost begin again, with their seeds."""
        self.returns[rows], self.length[rows], self.goal[rows] = 0.0, 0, -1
        for peak in self.peaks.values():
            peak[rows] = -np.inf
        self.waiting = rows.tolist() + self.waiting
        self.voided += len(rows)

    def ledger(self, *, n_action_steps: int, wall_s: float) -> Ledger:
        hz = self.spec.control_hz
        reached = self.goal >= 0
        known = "success" in self.spec.signals
        return Ledger(
            env=self.spec.id,
            env_kwargs=dict(self.spec.kwargs),
            reference=self.spec.reference,
            seed=np.array(self.seeds, dtype=np.int64),
            returns=self.returns,
            length=self.length,
            success=reached.astype(float) if known else np.full(len(self.seeds), np.nan),
            time_s=self.length / hz,
            goal_s=np.where(reached, self.goal / hz, np.nan),
            peaks=self.peaks,
            n_action_steps=n_action_steps,
            wall_s=wall_s,
            voided=self.voided,
        )


def _checked(seeds: Iterable[int]) -> list[int]:
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise UserError("no seeds to evaluate: ask for at least one episode")
    if len(set(seeds)) < len(seeds):
        raise UserError("a seed occurs twice: every seed is one episode, give each once")
    return seeds


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy()
