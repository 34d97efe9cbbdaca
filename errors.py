"""The one error that speaks to a user: a line that names the thing and the fix."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot be used. The command line prints the message alone and exits with 2."""


def at_least(minimum: int, settings: object, *names: str) -> None:
    """Refuse settings whose named fields are smaller than `minimum`, or no number.

    Raises:
        UserError: naming the first such field.
    """
    for name in names:
        value = getattr(settings, name)
        if not value >= minimum:
            raise UserError(f"{name} must be at least {minimum}, got {value}")


def fractions(settings: object, *names: str) -> None:
    """Refuse settings whose named fields lie outside [0, 1].

    Raises:
        UserError: naming the first such field.
    """
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise UserError(f"{name} {value:g} must lie between 0 and 1")


def positive(settings: object, *names: str) -> None:
    """Refuse settings whose named fields are not finite numbers above 0.

    Raises:
        UserError: naming the first such field.
    """
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise UserError(f"{name} must be positive, got {getattr(settings, name):g}")


def positive_or_none(settings: object, *names: str) -> None:
    """Refuse settings whose named fields are neither None nor above 0.

    Raises:
        UserError: naming the first such field.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise UserError(f"{name} must be positive, got {value:g}: None does without")


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} '{name}': {hint}")
