"""How policies stand to each other over one run or several: what the head of a report says.

With several runs (R) over the same episodes (E), intervals redraw both: one lucky seed does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from ..errors import UserError
from .compare import Difference, difference, sentence, unpaired
from .curves import Group
from .ledger import Ledger
from .statistics import Interval, bootstrap_runs, normalised_score

ORDER = ("base", "teacher", "start", "tuned", "final", "student")
"""names of evaluations that come first, in this order"""
COLORS = {"base": 5, "teacher": 5, "start": 5, "tuned": 0, "final": 0, "student": 1}
"""what others are compared with is grey wherever it appears; tuned and student keep their colours too"""


@dataclass(frozen=True)
class Entry:
    """A policy: the ledgers of its runs, over the same seeds in the same order."""

    name: str
    kind: str
    """name of the evaluation: base, tuned, ..."""
    ledgers: tuple[Ledger, ...]
    color: int
    reference: Entry | None
    """the entry it is compared with"""

    @property
    def binary(self) -> bool:
        """Success is known."""
        return all(ledger.has_success for ledger in self.ledgers)

    def grid(self, column: str) -> np.ndarray:
        """One column of all runs, (R, E)."""
        return np.stack([getattr(ledger, column) for ledger in self.ledgers])

    def intervals(self) -> dict[str, Interval | None]:
        """Success, return, normalised score and time to goal with their 95 % intervals; None: not known."""
        first = self.ledgers[0]
        if len(self.ledgers) == 1:
            goal, success = first.goal_interval(), first.success_interval()
            return {
                "success": success,
                "return": first.return_interval(),
                "score": first.score_interval(),
                "goal": goal,
            }
        returns, reference, goal = bootstrap_runs(self.grid("returns")), first.reference, self.grid("goal_s")
        return {
            "success": bootstrap_runs(self.grid("success")) if self.binary else None,
            "return": returns,
            "score": returns.scaled(lambda x: normalised_score(x, reference)) if reference else None,
            "goal": bootstrap_runs(goal) if np.isfinite(goal).any() else None,
        }

    def versus(self) -> Difference | str:
        """The difference to the reference, in success where known, else in return; or why there is none."""
        other = self.reference
        if other is None:
            return "reference"
        if reason := _unpaired(other, self):
            return reason
        column = "success" if self.binary and other.binary else "returns"
        a, b = other.grid(column), self.grid(column)
        if len(a) == 1:
            return difference(a[0], b[0], binary=column == "success")
        return Difference(float(a.mean()), float(b.mean()), bootstrap_runs(b - a), p=None)

    def finding(self) -> str:
        """The difference to the reference in plain words; empty if there is none."""
        found = self.versus()
        if isinstance(found, str) or self.reference is None:
            return ""
        runs, episodes = len(self.ledgers), len(self.ledgers[0])
        sample = f"{episodes} paired episodes" if runs == 1 else f"{runs} runs of {episodes} paired episodes"
        names = (self.reference.name, self.name)
        return sentence(found, binary=self.binary and self.reference.binary, sample=sample, names=names)


def entries(groups: Sequence[Group]) -> list[Entry]:
    """One entry per group and evaluation name; each is compared with the first of its group.

    Several groups that all have a final evaluation are a line (base, tuned, student): only those count, and each is
    compared with the one before it.
    """
    if len(groups) > 1 and all("final" in run.ledgers for group in groups for run in group.runs):
        return _line(groups)
    found: list[Entry] = []
    for group in groups:
        first = None
        for kind in sorted({name for run in group.runs for name in run.ledgers}, key=_rank):
            ledgers = [run.ledgers[kind] for run in group.runs if kind in run.ledgers]
            name = kind if len(groups) == 1 else f"{group.name} {kind}"
            color = COLORS.get(kind, 2 + len(found) % 3)
            entry = Entry(name, kind, _aligned(ledgers, name), color, first)
            found.append(entry)
            first = first or entry
    return found


def _line(groups: Sequence[Group]) -> list[Entry]:
    found: list[Entry] = []
    for i, group in enumerate(groups):
        ledgers = _aligned([run.ledgers["final"] for run in group.runs], group.name)
        color = COLORS.get(group.name, 2 + i % 3)
        found.append(Entry(group.name, "final", ledgers, color, found[-1] if found else None))
    return found


def findings(found: Sequence[Entry]) -> list[str]:
    """Plain sentences: tuned and last policies against their base, then the groups among each other."""
    pairs = [entry for entry in found if entry.reference is not None and entry.kind in ("tuned", found[-1].kind)]
    leaders = [entry for entry in pairs if entry.kind == "tuned"]
    across = [
        Entry(entry.name, entry.kind, entry.ledgers, entry.color, leaders[0])
        for entry in leaders[1:]
        if len(entry.ledgers) == len(leaders[0].ledgers)
    ]
    sentences = [entry.finding() for entry in pairs + across]
    return [s[0].upper() + s[1:] if s.startswith(ORDER) else s for s in sentences if s]


def _rank(kind: str) -> tuple[int, str]:
    return ORDER.index(kind) if kind in ORDER else len(ORDER), kind


def _aligned(ledgers: Sequence[Ledger], name: str) -> tuple[Ledger, ...]:
    """The episodes that all runs share, in the order of their seeds."""
    seeds = reduce(np.intersect1d, [ledger.seed for ledger in ledgers])
    if len(seeds) == 0:
        raise UserError(f"the runs' evaluations '{name}' share no seed: evaluate all on the same seeds")
    return tuple(ledger.at(seeds) for ledger in ledgers)


def _unpaired(a: Entry, b: Entry) -> str:
    if len(a.ledgers) != len(b.ledgers):
        return "not every run has both evaluations"
    return next((reason for x, y in zip(a.ledgers, b.ledgers, strict=True) if (reason := unpaired(x, y))), "")
