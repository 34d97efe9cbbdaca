"""Learning curves of runs: runs that differ only in their seed share one curve with a band."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .ledger import Ledger
from .pictures import load_pictures
from .plots import Line
from .run_folder import RunFolder

APART = ("seed", "out", "resume")
"""configuration in which runs of one group may differ"""
POINTS = 240
"""a curve of more points is averaged down to this many"""


@dataclass(frozen=True)
class Run:
    """Everything a report reads of one run folder, read once."""

    folder: RunFolder

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.path.resolve().name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Content of config.json."""
        return self.folder.facts

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl."""
        return self.folder.metrics()

    @cached_property
    def ledgers(self) -> dict[str, Ledger]:
        """Evaluations by name; of those named by a step of training, 0 is base and the last one tuned.

        Where training began with a fresh policy instead of a given one, 0 is the start.
        """
        ledgers = self.folder.ledgers()
        steps = sorted((name for name in ledgers if name.isdecimal()), key=int)
        found = {name: ledger for name, ledger in ledgers.items() if not name.isdecimal()}
        if steps and int(steps[0]) == 0:
            fresh = self.facts["config"].get("policy") == ""
            found.setdefault("start" if fresh else "base", ledgers[steps.pop(0)])
        if steps:
            found.setdefault("tuned", ledgers[steps[-1]])
        return found

    @cached_property
    def pictures(self) -> dict[str, Any]:
        """Content of pictures.json."""
        return load_pictures(self.folder.path / "pictures.json")

    def column(self, key: str, x: str) -> tuple[np.ndarray, np.ndarray]:
        """Values of `key` over `x`, where a line has both."""
        pairs = [(row[x], row[key]) for row in self.rows if row.get(key) is not None and row.get(x) is not None]
        table = np.array(pairs, dtype=float).reshape(-1, 2)
        return table[:, 0], table[:, 1]


@dataclass(frozen=True)
class Group:
    """Runs of one configuration with different seeds."""

    name: str
    runs: tuple[Run, ...]
    color: int

    def line(self, key: str, x: str) -> Line | None:
        """The group's curve: of one run with its logged interval, of several the mean with their range."""
        columns = [column for run in self.runs if len((column := run.column(key, x))[0]) > 1]
        if not columns:
            return None
        if len(columns) > 1:
            return self._mean(columns)
        run = self.runs[0]
        low, high = run.column(f"{key}_low", x), run.column(f"{key}_high", x)
        (xs, ys), banded = columns[0], len(low[0]) == len(high[0]) == len(columns[0][0])
        parts = thin(xs, ys, *((low[1], high[1]) if banded else ()))
        return Line(self.name, *parts[:2], *parts[2:], color=self.color)

    def _mean(self, columns: Sequence[tuple[np.ndarray, np.ndarray]]) -> Line:
        # Only where every run has data: a mean over fewer runs would jump where one ends.
        first, last = max(x[0] for x, _ in columns), min(x[-1] for x, _ in columns)
        longest = max((x for x, _ in columns), key=len)
        grid = longest[(longest >= first) & (longest <= last)]
        values = np.stack([np.interp(grid, x, y) for x, y in columns])
        x, mean, low, high = thin(grid, values.mean(0), values.min(0), values.max(0))
        return Line(self.name, x, mean, low, high, color=self.color)

    def metric_names(self) -> list[str]:
        """Metrics that any run logs, in order of first appearance."""
        return list(dict.fromkeys(key for run in self.runs for row in run.rows for key in row))


def load(paths: Sequence[str | Path]) -> list[Group]:
    """Open run folders and group those whose configurations differ only in `APART`."""
    grouped: dict[str, list[Run]] = {}
    for path in paths:
        run = Run(RunFolder.open(path))
        config = {k: v for k, v in run.facts["config"].items() if k not in APART}
        grouped.setdefault(json.dumps(config, sort_keys=True), []).append(run)
    return [Group(_name(runs), tuple(runs), color) for color, runs in enumerate(grouped.values())]


def thin(*columns: np.ndarray) -> list[np.ndarray]:
    """Average neighbours until at most `POINTS` are left."""
    size = len(columns[0])
    if size <= POINTS:
        return list(columns)
    edges = np.arange(POINTS) * size // POINTS
    counts = np.diff(np.append(edges, size))
    return [np.add.reduceat(column, edges) / counts for column in columns]


def _name(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return runs[0].name
    stems = {re.sub(r"[-_. ]+(seed|s)?[-_. ]*\d+$", "", run.name) for run in runs}
    return stems.pop() if len(stems) == 1 else runs[0].name
