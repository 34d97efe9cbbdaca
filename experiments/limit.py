"""What `--budget` says, for verbs that train several things and compare them."""

from __future__ import annotations

import math

from ..errors import UserError


def read_limit(budget: str, steps: str, example: str) -> tuple[str, float]:
    """("wall", seconds) or (`steps`, number).

    Args:
        budget: `wall=SECONDS` or `STEPS=N`.
        steps: what is counted, `env_steps` or `grad_steps`.
        example: shown where it cannot be read.

    Raises:
        UserError: if it cannot be read, or is not positive and finite.
    """
    kind, _, amount = budget.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = 0.0
    if kind not in (steps, "wall") or not 0 < value < math.inf:
        raise UserError(f"--budget {budget} must be {steps}=N or wall=SECONDS, for example {example}")
    return kind, value
