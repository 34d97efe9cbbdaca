"""Collecting demonstrations: episodes of a controller, appended to a dataset one by one.

Episode i has its own seed and its own noise, and episodes are written in order, so the set depends neither on
the number of slots nor on how often the collection was killed and continued.

N slots, n executed actions per call, A action dim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import to_dict
from ..datasets.episodes import Episodes
from ..datasets.readers import load
from ..datasets.writer import EpisodeWriter
from ..envs.core import Core, Step
from ..envs.history import History
from ..envs.seeds import train_seeds
from ..spec import ArraySpec, EnvSpec
from .controllers import Controller

NOISE_STREAM = 0x64617461
"""keeps a controller's noise independent of the environment's own draws from the same seed"""
Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Summary:
    """What a set amounts to."""

    episodes: int
    steps: int
    mean_return: float
    std_return: float
    success_rate: float | None
    """share of episodes that raised success at any step; None: the environment does not say"""
    voided: int = 0
    """episodes that were lost with their worker and recorded again"""


def collect(
    controller: Controller,
    core: Core,
    episodes: int,
    path: str | Path,
    *,
    steps: int = 0,
    seed: int = 0,
    source: str = "",
    progress: Progress | None = None,
) -> Summary:
    """Grow the set at `path` to `episodes` episodes, or to as many as it takes for `steps` steps.

    Args:
        controller: who acts; clipped to the environment's limits, and recorded as executed (float32).
        core: N slots.
        episodes: wanted in all; those already there count.
        path: dataset folder, new or begun by an equal call.
        steps: least number of steps; 0: `episodes` counts.
        seed: with an episode's index fixes its start and noise.
        source: who acted, for the attributes.
        progress: called after every chunk with `episodes`, `steps`, mean return and success rate so far.

    Raises:
        UserError: where the folder cannot be continued with these settings, or the disk is full.
    """
    controller.check_env(core.spec)
    with EpisodeWriter(path, attributes(core.spec, source, seed)) as writer:
        collection = _Collection(core, writer, 0 if steps else episodes, steps, seed)
        if collection.running:
            _run(controller, core, collection, progress or (lambda metrics: None))
    return replace(summarise(load(path)), voided=collection.voided)


def summarise(episodes: Episodes) -> Summary:
    """Counts, returns and success of a set with rewards."""
    returns = episodes.returns()
    mean, std = float(returns.mean()), float(returns.std())
    return Summary(len(episodes), episodes.num_steps, mean, std, episodes.success_rate())


def attributes(spec: EnvSpec, source: str, seed: int) -> dict[str, Any]:
    """A collected set's attributes; a collection is continued only where they are equal."""
    specs: dict[str, ArraySpec] = {f"observation.{name}": array for name, array in spec.obs.items()}
    return {
        "env": spec.id,
        "env_kwargs": to_dict(spec.kwargs),
        "fps": spec.control_hz,
        "source": source,
        "licence": "",
        "seed": seed,
        "specs": to_dict(specs | {"action": spec.action}),
    }


@dataclass
class _Recording:
    """One episode in the making."""

    index: int
    rng: np.random.Generator
    chunks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    final: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, slot: int, before: Mapping[str, np.ndarray], action: np.ndarray, step: Step) -> None:
        """Record the actions that were executed, each with the observation it was taken on."""
        count = int(step.valid[slot].sum())
        for name, after in step.obs.items():
            taken_on = np.concatenate([before[name][slot][None], after[slot, : count - 1]])
            self._put(f"observation.{name}", taken_on)
            self.final[f"observation.{name}"] = _compact(after[slot, count - 1])
        outcome = {"reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
        self._put("action", action[slot, :count])
        for name, value in {**outcome, **step.signals}.items():
            self._put(f"next.{name}", value[slot, :count])

    def episode(self) -> dict[str, np.ndarray]:
        """Key -> (L, ...)."""
        return {key: np.concatenate(parts) for key, parts in self.chunks.items()}

    def _put(self, key: str, value: np.ndarray) -> None:
        self.chunks.setdefault(key, []).append(_compact(value))


class _Collection:
    """Which slot records which episode, and which finished ones wait for an earlier one to be written."""

    def __init__(self, core: Core, writer: EpisodeWriter, episodes: int, steps: int, seed: int) -> None:
        self.core, self.writer, self.seed = core, writer, seed
        self.episodes, self.steps = episodes, steps
        self.following = len(writer)
        """index of the episode that starts next"""
        self.slots: list[_Recording | None] = [None] * core.num_envs
        self.again: list[int] = []
        """episodes that were lost and have to start anew"""
        self.voided = 0
        self.idle = np.random.default_rng(0)
        self.finished: dict[int, _Recording] = {}
        self.returns: list[float] = []
        self.successes: list[bool] = []

    @property
    def running(self) -> bool:
        """Too little is on disk; a count of steps is reached by the first episodes that suffice, in their order."""
        return len(self.writer) < self.episodes or self.writer.num_steps < self.steps

    @property
    def startable(self) -> int:
        """Episodes that may still start."""
        return sys.maxsize if self.steps else self.episodes - self.following + len(self.again)

    def first_obs(self) -> dict[str, np.ndarray]:
        """Reset every slot; those without an episode must be somewhere too, and nobody looks at them."""
        first = self.following
        self.slots = [self._next() for _ in self.slots]
        indices = [first if slot is None else slot.index for slot in self.slots]
        return dict(self.core.reset([train_seeds(self.seed, 0, index) for index in indices]))

    def rng(self) -> list[np.random.Generator]:
        """One generator per slot."""
        return [self.idle if slot is None else slot.rng for slot in self.slots]

    def record(self, before: Mapping[str, np.ndarray], action: np.ndarray, step: Step) -> None:
        """Add a chunk to every running episode; those that ended make their slot free."""
        for index, slot in enumerate(self.slots):
            if slot is None:
                continue
            if step.void[index]:
                self.again.append(slot.index)
                self.voided += 1
                self.slots[index] = None
                continue
            slot.add(index, before, action, step)
            if step.ended[index]:
                self.finished[slot.index] = slot
                self.slots[index] = None
        while self.running and len(self.writer) in self.finished:
            self._write(self.finished.pop(len(self.writer)))

    def refill(self) -> tuple[list[int], dict[str, np.ndarray]]:
        """Start the next episodes in free slots; returns these and name -> (len(slots), ...)."""
        free = [index for index, slot in enumerate(self.slots) if slot is None][: self.startable]
        seeds = []
        for index in free:
            self.slots[index] = slot = self._next()
            seeds.append(train_seeds(self.seed, 0, slot.index) if slot else 0)
        return free, dict(self.core.reset(seeds, free)) if free else {}

    def progress(self) -> dict[str, int | float]:
        """Episodes on disk, and means over those written by this process."""
        metrics: dict[str, int | float] = {"episodes": len(self.writer), "steps": self.writer.num_steps}
        if self.returns:
            metrics["rollout/ep_rew_mean"] = float(np.mean(self.returns))
        if self.successes:
            metrics["rollout/success_rate"] = float(np.mean(self.successes))
        return metrics

    def _next(self) -> _Recording | None:
        if self.startable < 1:
            return None
        if self.again:
            index = self.again.pop(0)
        else:
            index, self.following = self.following, self.following + 1
        return _Recording(index, np.random.default_rng([NOISE_STREAM, self.seed, index]))

    def _write(self, recording: _Recording) -> None:
        episode = recording.episode()
        self.writer.append(episode, recording.final)
        self.returns.append(float(episode["next.reward"].sum()))
        if "next.success" in episode:
            self.successes.append(bool(episode["next.success"].any()))


def _run(controller: Controller, core: Core, collection: _Collection, progress: Progress) -> None:
    history = History(controller.n_obs_steps)
    current = collection.first_obs()
    history.reset(_tensors(current))
    while collection.running:
        obs = {name: value.numpy() for name, value in history.obs.items()}
        action = _executable(controller.act(obs, collection.rng()), core.spec.action)
        step = core.step(action)
        collection.record(current, action, step)
        progress(collection.progress())
        history.push_chunk(step.map(_tensor))
        current = {name: np.array(value) for name, value in step.final_obs.items()}
        free, first = collection.refill()
        if free:
            history.reset(_tensors(first), free)
            for name, value in first.items():
                current[name][free] = value


def _executable(action: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """What is executed and recorded: within the limits, in the precision of the dataset."""
    low = -np.inf if spec.low is None else spec.low
    high = np.inf if spec.high is None else spec.high
    return np.clip(action, low, high).astype(np.float32)


def _compact(value: np.ndarray) -> np.ndarray:
    """A copy in the dataset's precision: real numbers as float32, others as they are."""
    return np.array(value, np.float32 if value.dtype.kind == "f" else value.dtype)


def _tensor(value: np.ndarray) -> torch.Tensor:
    # A copy, since a core may reuse its buffers and hand out read-only views.
    return torch.from_numpy(np.array(value))


def _tensors(obs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: _tensor(value) for name, value in obs.items()}
