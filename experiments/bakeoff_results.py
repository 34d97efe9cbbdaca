"""What the runs of a bake-off say: how good, how surely, at what cost. R runs, E episodes, P evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .compare import Difference
from .ledger import Ledger
from .run_folder import RunFolder
from .standings import Entry
from .statistics import Interval, bootstrap_runs

AXES = ("env_steps", "grad_steps", "wall_s")
PARTS = ("env", "sampling", "update")
GREY = 5
"""the base's colour"""


@dataclass(frozen=True)
class Point:
    """One evaluation of all runs of a method."""

    at: Mapping[str, float]
    """env_steps, grad_steps, wall_s: means over the runs"""
    value: Interval
    """success where it is known, else return; runs and episodes redrawn"""


@dataclass(frozen=True, eq=False)
class Result:
    """One method."""

    name: str
    color: int
    runs: tuple[RunFolder, ...]

    @cached_property
    def rows(self) -> list[list[dict[str, Any]]]:
        """Lines of metrics.jsonl, run by run."""
        return [run.metrics() for run in self.runs]

    @cached_property
    def evaluated(self) -> list[list[dict[str, Any]]]:
        """Those lines that hold an evaluation."""
        return [[row for row in rows if row.get("eval/mean_reward") is not None] for rows in self.rows]

    @cached_property
    def evaluations(self) -> list[list[Ledger]]:
        """Their ledgers, by name: a run that was killed may have left one of a later moment."""
        known = [run.ledgers() for run in self.runs]
        return [
            [ledgers[f"{row['env_steps']:09d}"] for row in rows]
            for rows, ledgers in zip(self.evaluated, known, strict=True)
        ]

    @property
    def final(self) -> tuple[Ledger, ...]:
        """The last ledger of every run."""
        return tuple(ledgers[-1] for ledgers in self.evaluations)

    @cached_property
    def cost(self) -> dict[str, float]:
        """Environment steps, gradient steps and seconds of a run, and where the seconds went; means over runs."""
        last = [rows[-1] for rows in self.rows]
        found = {axis: float(np.mean([row[axis] for row in last])) for axis in AXES}
        for part in PARTS:
            seconds = [sum(row.get(f"time/{part}_s") or 0.0 for row in rows) for rows in self.rows]
            found[f"{part}_s"] = float(np.mean(seconds))
        return found

    @cached_property
    def curve(self) -> list[Point]:
        """Where every run has been evaluated."""
        return [
            Point(
                {axis: float(np.mean([row[axis] for row in rows])) for axis in AXES},
                _interval(ledgers),
            )
            for rows, ledgers in zip(
                zip(*self.evaluated, strict=False), zip(*self.evaluations, strict=False), strict=True
            )
        ]


@dataclass(frozen=True, eq=False)
class Contest:
    """All methods and their base, the best first."""

    base: Ledger
    results: Sequence[Result]
    failed: Mapping[str, str] = field(default_factory=dict)
    """method -> why"""

    @property
    def binary(self) -> bool:
        """Success is what counts; else the return."""
        return self.base.has_success

    @cached_property
    def best(self) -> Result | None:
        """The first."""
        return self.results[0] if self.results else None

    def base_entry(self, runs: int) -> Entry:
        """The base, as often as it is compared with."""
        return Entry("base", "base", (self.base.in_seed_order(),) * runs, GREY, None)

    def entry(self, result: Result, reference: Result | None = None) -> Entry:
        """A method beside another one, or beside the base."""
        other = self.base_entry(len(result.final)) if reference is None else self.entry(reference)
        ledgers = tuple(ledger.in_seed_order() for ledger in result.final)
        return Entry(result.name, "tuned", ledgers, result.color, other)

    def to_json(self) -> dict[str, Any]:
        """Every number."""
        return {
            "env": self.base.env,
            "episodes": len(self.base),
            "measure": "success" if self.binary else "return",
            "base": self.base.summary(),
            "algorithms": {result.name: self._numbers(result) for result in self.results},
            "failed": dict(self.failed),
        }

    def _numbers(self, result: Result) -> dict[str, Any]:
        intervals = {name: asdict(v) for name, v in self.entry(result).intervals().items() if v is not None}
        others = {"base": None} | ({"best": self.best} if self.best is not None and self.best is not result else {})
        versus = {name: self.entry(result, other).versus() for name, other in others.items()}
        return {
            "final": intervals,
            "versus": {name: asdict(d) | {"sure": d.sure} for name, d in versus.items() if isinstance(d, Difference)},
            "cost": result.cost,
            "curve": [{**point.at, **asdict(point.value)} for point in result.curve],
        }


def results(base: Ledger, runs: Mapping[str, Sequence[RunFolder]], failed: Mapping[str, str]) -> Contest:
    """Put the finished runs of every method in order."""
    colors = [color for color in range(len(runs) + 1) if color != GREY]
    found = [Result(name, color, tuple(folders)) for (name, folders), color in zip(runs.items(), colors, strict=False)]
    return Contest(base, sorted(found, key=lambda result: -_interval(result.final).mean), failed)


def _interval(ledgers: Sequence[Ledger]) -> Interval:
    column = "success" if all(ledger.has_success for ledger in ledgers) else "returns"
    return bootstrap_runs(np.stack([getattr(ledger.in_seed_order(), column) for ledger in ledgers]))
