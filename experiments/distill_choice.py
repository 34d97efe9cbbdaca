"""Which student is kept: what was measured of every candidate, and the rule that chooses among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .compare import Difference
from .ledger import Ledger
from .run_folder import RunFolder

MARGIN = 0.05
"""success, or share of the teacher's return, that a student may lose at most, with 95 % confidence"""
ALIKE = 1.1
"""times the fastest decision within which others are as fast: clocks differ that much by themselves"""


@dataclass(frozen=True, eq=False)
class Measured:
    """A student, or the teacher itself."""

    name: str
    ledger: Ledger
    ms: float
    """per decision"""
    jerk: float
    """at the seams, see `SeamEnv`"""
    versus: Difference
    """to the teacher, episode by episode, in success or return"""
    margin: float
    run: RunFolder | None = None

    @property
    def eligible(self) -> bool:
        """Not worse than the teacher by more than the margin, with 95 % confidence."""
        return self.versus.difference.low > -self.margin

    @property
    def steps(self) -> int:
        """Gradient steps of the student."""
        return self.run.metrics()[-1]["grad_steps"] if self.run else 0

    def to_json(self) -> dict[str, Any]:
        """Every number."""
        return {
            "score": self.versus.b,
            "versus_teacher": asdict(self.versus),
            "eligible": self.eligible,
            "ms_per_decision": self.ms,
            "seam_jerk": None if math.isnan(self.jerk) else self.jerk,
            "grad_steps": self.steps,
            "policy_hash": self.ledger.policy_hash,
        }


@dataclass(frozen=True, eq=False)
class Choice:
    """All that was measured, and who is kept."""

    teacher: Measured
    students: Sequence[Measured]
    left_out: Mapping[str, str]
    """method -> why it does not fit the teacher"""

    @property
    def binary(self) -> bool:
        """Success is what counts; else the return."""
        return self.teacher.ledger.has_success

    @property
    def winner(self) -> Measured:
        """The fastest of the eligible, the smoothest of those as fast; without one, the best score."""
        eligible = [student for student in self.students if student.eligible]
        if not eligible:
            return max(self.students, key=lambda student: student.versus.b)
        fastest = min(student.ms for student in eligible)
        alike = [student for student in eligible if student.ms <= ALIKE * fastest]
        return min(alike, key=lambda student: math.inf if math.isnan(student.jerk) else student.jerk)

    @property
    def sentence(self) -> str:
        """Who, and why."""
        kept, count = self.winner, sum(student.eligible for student in self.students)
        what = "5 points of success" if self.binary else "5 % of its return"
        if not kept.eligible:
            return (
                f"nobody is shown to stay within {what} of the teacher: kept {kept.name}, the best score; more "
                "gradient steps, or more --eval-episodes, may change that"
            )
        return (
            f"kept {kept.name}: the fastest, then smoothest, of {count} that stay within {what} of the teacher "
            f"({kept.ms:.3g} ms per decision, the teacher {self.teacher.ms:.3g})"
        )

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """Header and rows for people, the teacher first."""
        scale, unit = (100, " %") if self.binary else (1, "")
        rows = []
        for one in (self.teacher, *self.students):
            delta = one.versus.difference.scaled(lambda x: scale * x)
            mark = "" if one is self.teacher else "yes" if one.eligible else "no"
            mark += ", kept" if one is self.winner else ""
            versus = "" if one is self.teacher else f"{delta.mean:+.3g} [{delta.low:.3g}, {delta.high:.3g}]"
            score = f"{scale * one.versus.b:.4g}{unit}"
            rows.append((one.name, score, versus, f"{one.ms:.3g}", f"{one.jerk:.3g}", str(one.steps or ""), mark))
        measure = "success" if self.binary else "return"
        return ("student", measure, "to teacher (95 %)", "ms", "seam jerk", "grad steps", "eligible"), rows

    def to_json(self) -> dict[str, Any]:
        """Every number."""
        return {
            "env": self.teacher.ledger.env,
            "episodes": len(self.teacher.ledger),
            "measure": "success" if self.binary else "return",
            "margin": self.teacher.margin,
            "kept": self.winner.name,
            "why": self.sentence,
            "teacher": self.teacher.to_json(),
            "candidates": {student.name: student.to_json() for student in self.students},
            "left_out": dict(self.left_out),
        }
