"""Success against delay: one policy, every mode of the control loop, the same seeded episodes at each delay.

OUT/latency.json    every episode of every cell, and the advice
OUT/latency.html    the page
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..deploy.runtime import Chunking, Delays, PolicyError
from ..deploy.runtime.player import MODES, guided, takes_prefix
from ..envs.core import Core
from ..envs.seeds import eval_seeds
from ..errors import UserError
from ..files import atomic_write
from .delayed import Played, play_delayed
from .statistics import Interval

SCHEMA = 1


@dataclass(frozen=True)
class Grid:
    """What is measured."""

    delays: Sequence[Delays]
    modes: Sequence[str]
    execute: Sequence[int | None] = (None,)
    """each mode plays so many actions of a chunk, or fewer where a delay leaves fewer; None: the policy's own number"""
    ensemble: float | None = None
    """of the modes that have chunks to average"""
    episodes: int = 50


@dataclass(frozen=True, eq=False)
class Cell:
    """One mode at one delay."""

    chunking: Chunking
    delays: Delays
    ticks: int
    """most that a chunk may take"""
    played: Played

    @property
    def name(self) -> str:
        """Mode and actions executed, "async, 4"."""
        return f"{self.chunking.mode}, {self.chunking.execute}"

    def to_json(self) -> dict[str, Any]:
        """Headline numbers, and one column per episode."""
        ledger, success = self.played.ledger, self.played.ledger.success_interval()
        goal = ledger.goal_interval()
        return {
            **asdict(self.chunking),
            **asdict(self.delays),
            "delay_ticks": self.ticks,
            "success": success and asdict(success),
            "return": asdict(ledger.return_interval()),
            "time_to_goal_s": goal and asdict(goal),
            "starved": self.played.starved,
            "refused": self.played.refused,
            "consumed_max": self.played.consumed,
            "seams": self.played.seams,
            "jerk": dict(self.played.jerk),
            "episodes": {
                "seed": ledger.seed.tolist(),
                "return": ledger.returns.tolist(),
                "length": ledger.length.tolist(),
                "success": ledger.success.tolist() if ledger.has_success else None,
            },
        }


@dataclass(frozen=True, eq=False)
class Curve:
    """All cells of one policy in one environment."""

    policy: str
    env: str
    hz: float
    horizon: int
    cells: tuple[Cell, ...]
    skipped: tuple[str, ...] = ()
    """what could not be played, and why"""

    @cached_property
    def binary(self) -> bool:
        """Cells are judged by success; where the environment knows none, or no episode had any, by return."""
        ledgers = [cell.played.ledger for cell in self.cells]
        return all(ledger.has_success for ledger in ledgers) and any(ledger.success.any() for ledger in ledgers)

    def value(self, cell: Cell) -> Interval:
        """Success rate or return."""
        ledger = cell.played.ledger
        return (ledger.success_interval() if self.binary else None) or ledger.return_interval()

    @property
    def at(self) -> dict[float, list[Cell]]:
        """Cells by delay, growing."""
        found: dict[float, list[Cell]] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.delays.delay_ms):
            found.setdefault(cell.delays.delay_ms, []).append(cell)
        return found

    def to_json(self, advice: Sequence[str]) -> dict[str, Any]:
        """JSON values."""
        facts = {"schema": SCHEMA, "policy": self.policy, "env": self.env, "hz": self.hz, "horizon": self.horizon}
        cells = [cell.to_json() for cell in self.cells]
        return {**facts, "advice": list(advice), "skipped": list(self.skipped), "cells": cells}


def measure(policy: Any, env: Core, grid: Grid, *, name: str, progress: Callable[[Cell], None] | None = None) -> Curve:
    """Play every cell.

    Args:
        policy: as `play_delayed` takes it.
        env: its slots share the episodes of a cell.
        grid: what to play.
        name: of the policy, for people.
        progress: called with every finished cell.

    Raises:
        UserError: for modes that the policy cannot be played in, or if no control rate is known.
    """
    hz = policy.spec.control_hz or env.spec.control_hz
    if not hz > 0:
        raise UserError("neither policy nor environment knows its control rate: milliseconds mean nothing")
    cells, skipped = [], []
    for delays in sorted(grid.delays, key=lambda delays: delays.delay_ms):
        ticks = delays.longest(hz)
        for chunking in _chunkings(policy, grid, ticks):
            if isinstance(chunking, str):
                skipped.append(f"{chunking} at {delays.delay_ms:g} ms")
                continue
            seeds = eval_seeds(grid.episodes)
            played = play_delayed(policy, env, seeds, hz=hz, chunking=chunking, delays=delays)
            cells.append(Cell(chunking, delays, ticks, played))
            if progress is not None:
                progress(cells[-1])
    if not cells:
        raise UserError(f"a chunk of {policy.spec.horizon} actions lasts for none of these delays: add shorter ones")
    return Curve(name, env.spec.id, hz, policy.spec.horizon, tuple(cells), tuple(skipped))


def modes_of(policy: Any, asked: Sequence[str] = ()) -> list[str]:
    """The modes to measure: those asked for, or all that the policy can be played in.

    Raises:
        UserError: for a mode that is unknown or that the policy does not have.
    """
    if not asked:
        return [mode for mode in MODES if mode != "rtc" or takes_prefix(policy) or guided(policy)]
    try:
        return [Chunking(mode).resolved(policy).mode for mode in dict.fromkeys(asked)]
    except PolicyError as error:
        raise UserError(str(error)) from None


def save(curve: Curve, folder: Path, advice: Sequence[str], page: str) -> None:
    """Write latency.json and latency.html."""
    atomic_write(folder / "latency.json", json.dumps(curve.to_json(advice)) + "\n")
    atomic_write(folder / "latency.html", page)


def _chunkings(policy: Any, grid: Grid, ticks: int) -> list[Chunking | str]:
    """Modes and actions executed that differ at this delay; words for what cannot be played."""
    found: list[Chunking | str] = []
    horizon = policy.spec.horizon
    for mode in grid.modes:
        room = horizon if mode == "sync" else horizon - ticks
        if room < 1:
            found.append(f"{mode}: a chunk of {horizon} actions is over before it arrives")
            continue
        try:
            plain = Chunking(mode, ensemble=None if mode == "sync" else grid.ensemble).resolved(policy, injected=ticks)
        except PolicyError as error:
            raise UserError(str(error)) from None
        wanted = [plain.execute if e is None else min(e, room) for e in grid.execute]
        found += [replace(plain, execute=e) for e in dict.fromkeys(wanted)]
    return found


def mean_seconds(cell: Cell) -> float:
    """Simulated seconds of an episode."""
    return float(np.mean(cell.played.ledger.time_s))
