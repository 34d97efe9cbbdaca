"""Is B better than A, and how sure: two ledgers over the same seeds, compared episode by episode."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from . import statistics
from .ledger import Ledger
from .statistics import Interval

SURE = 0.05
"""p-value below which a difference is called one"""


@dataclass(frozen=True)
class Difference:
    """B minus A in one quantity."""

    a: float
    b: float
    difference: Interval
    p: float | None
    """None where only an interval is known (several runs)"""

    @property
    def sure(self) -> bool:
        """The difference is unlikely to be chance."""
        if self.p is not None:
            return self.p < SURE
        return self.difference.low > 0 or self.difference.high < 0


def compare(a: Ledger, b: Ledger, *, names: tuple[str, str] = ("A", "B")) -> dict[str, Any]:
    """Compare two ledgers of the same environment and seeds.

    Returns:
        JSON values: `episodes`; `return` and, where the environment knows success, `success`, each with
        `a`, `b`, `difference` (mean, low, high: 95 %) and `p`; `better` ("a", "b" or None); and one plain
        `sentence`.

    Raises:
        UserError: if the ledgers cannot be paired.
    """
    if reason := unpaired(a, b):
        raise UserError(reason)
    a, b = a.in_seed_order(), b.in_seed_order()
    found = {"return": difference(a.returns, b.returns)}
    if a.has_success and b.has_success:
        found["success"] = difference(a.success, b.success, binary=True)
    headline = found.get("success", found["return"])
    return {
        "env": a.env,
        "episodes": len(a),
        "better": ("b" if headline.difference.mean > 0 else "a") if headline.sure else None,
        "sentence": sentence(headline, binary="success" in found, sample=f"{len(a)} paired episodes", names=names),
    } | {name: asdict(value) for name, value in found.items()}


def difference(a: np.ndarray, b: np.ndarray, *, binary: bool = False) -> Difference:
    """B minus A over pairs (E,): bootstrap interval; exact McNemar for binary outcomes, else sign flips."""
    return Difference(
        a=float(a.mean()),
        b=float(b.mean()),
        difference=statistics.paired_difference(a, b),
        p=statistics.mcnemar(a, b) if binary else statistics.sign_flip_test(a, b),
    )


def sentence(found: Difference, *, binary: bool, sample: str, names: tuple[str, str]) -> str:
    """The finding in plain words."""
    delta = found.difference
    sign, scale = math.copysign(1, delta.mean), 100 if binary else 1
    low, high = sorted((sign * scale * delta.low, sign * scale * delta.high))
    size = f"{_number(abs(delta.mean) * scale)} points" if binary else _number(abs(delta.mean))
    more = "more" if delta.mean >= 0 else "less"
    verb = f"succeeds {size} {more} often" if binary else f"earns {size} {more} return"
    than = f"{names[1]} {verb} than {names[0]}"
    p = "" if found.p is None else f", {p_value(found.p)}"
    evidence = f"(95 % CI {_number(low)}..{_number(high)}{p}, {sample})"
    if found.sure:
        return f"{than} {evidence}"
    return f"No difference shown: {than} {evidence}; more episodes may tell"


def unpaired(a: Ledger, b: Ledger) -> str:
    """Why two ledgers cannot be compared episode by episode, and the fix; empty if they can."""
    for what, ours, theirs in (("env", a.env, b.env), ("env_kwargs", a.env_kwargs, b.env_kwargs)):
        if ours != theirs:
            return f"A and B differ in {what}: {ours} and {theirs}; evaluate both on the same one"
    if set(a.seed.tolist()) != set(b.seed.tolist()):
        return (
            f"A and B have different seeds ({len(a)} and {len(b)} episodes): "
            "evaluate both with the same --episodes and seeds"
        )
    return ""


def _number(x: float) -> str:
    return f"{x:.1f}" if abs(x) < 1000 else f"{x:.0f}"


def p_value(p: float) -> str:
    """A p-value as text: three decimals, or one digit where it is tiny."""
    return f"p = {p:.1g}" if p < 0.001 else f"p = {p:.3f}"
