"""What a robot may be asked to do: bounds per element of the action, a workspace, and what training has seen.

Units are the action's own; rates are per second of the commands sent at the control rate. Shapes: A action dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from .spec import PolicyError, Spec

HUGE = 1e30
"""numbers beyond are taken for infinite: their differences would overflow"""
PerElement = Union[None, int, float, Sequence[Any], Mapping[str, Any]]  # evaluated, on Python 3.9 too
"""one number for all elements, one for each (None: unbounded), or by name (the others are unbounded)"""
Row = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Limits:
    """Bounds on the commands. The dimension follows from `names`, or from the first list given."""

    low: PerElement = None
    high: PerElement = None
    velocity: PerElement = None
    """largest change per second"""
    acceleration: PerElement = None
    """largest change of the velocity per second"""
    jerk: PerElement = None
    """largest change of the acceleration per second"""
    names: Sequence[str] = ()
    """of the elements; empty: "0", "1", ..."""
    box: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """name -> (low, high): a workspace of elements that are positions; narrows `low` and `high`"""

    @classmethod
    def from_spec(cls, spec: Spec, **bounds: Any) -> Limits:
        """The limits an exported file states, and what you add: rates, a box."""
        dim = spec.action["shape"][-1]
        names = spec.action.get("names") or [str(i) for i in range(dim)]
        return cls(**{"low": spec.action.get("low"), "high": spec.action.get("high"), "names": names, **bounds})

    def rows(self) -> list[Row]:
        """Low, high, velocity, acceleration and jerk of each element; infinite where unbounded.

        Raises:
            PolicyError: for bounds that are not numbers, not positive, contradictory, or of unequal lengths.
        """
        names = self._names()
        low, high = _column("low", self.low, names, -math.inf), _column("high", self.high, names, math.inf)
        if not isinstance(self.box, Mapping):
            raise PolicyError(f"box must map names to pairs, got {self.box!r}")
        for name, pair in self.box.items():
            i = _index("box", name, names)
            try:
                a, b = pair
            except (TypeError, ValueError):
                raise PolicyError(f"box '{name}' must be a pair (low, high), got {pair!r}") from None
            low[i] = max(low[i], _number(f"box '{name}'", a, -math.inf))
            high[i] = min(high[i], _number(f"box '{name}'", b, math.inf))
        rates = [_column(what, getattr(self, what), names, math.inf) for what in ("velocity", "acceleration", "jerk")]
        for i, name in enumerate(names):
            if not low[i] <= high[i]:
                raise PolicyError(f"no '{name}' is within the limits: low {low[i]:g} is above high {high[i]:g}")
            for what, column in zip(("velocity", "acceleration", "jerk"), rates):
                if not column[i] > 0:
                    raise PolicyError(f"{what} of '{name}' must be positive, got {column[i]:g}")
        return list(zip(low, high, *rates))

    def _names(self) -> Sequence[str]:
        if len(self.names):
            return self.names
        for value in (self.low, self.high, self.velocity, self.acceleration, self.jerk):
            if isinstance(value, (list, tuple, np.ndarray)):
                return [str(i) for i in range(len(value))]
        raise PolicyError("limits need the number of elements: give names, or a list as `low`")


@dataclass(frozen=True)
class Workspace:
    """A box around what a function makes of an action, such as the tool's position by forward kinematics."""

    position: Callable[[np.ndarray], Any]
    """action (A,) -> position (P,)"""
    low: Sequence[float]
    """(P,)"""
    high: Sequence[float]

    def contains(self, action: Sequence[float]) -> bool:
        """Whether the position lies in the box. One that cannot be computed does not."""
        try:
            position = np.asarray(self.position(np.array(action, np.float64)), np.float64)
            inside = (position >= self.low) & (position <= self.high)  # NaN is not
            return position.shape == np.shape(self.low) and bool(inside.all())
        except Exception:  # whatever the user's function throws, the command must not leave
            return False


class Seen:
    """The range of observations in training: quantiles where the file has them, else the normaliser's range.

    An observation is outside if an element is beyond its range by more than `margin` times its width, or is
    missing, misshapen or not finite. `steps` in a row make a trip.
    """

    def __init__(self, ranges: Mapping[str, tuple[Any, Any]], margin: float = 0.5, steps: int = 1) -> None:
        self.margin, self.steps = _number("ood margin", margin, math.nan), steps
        if not self.margin >= 0 or not isinstance(steps, int) or steps < 1:
            raise PolicyError(f"ood needs margin >= 0 and steps >= 1, got {margin!r} and {steps!r}")
        self.ranges = {}
        for name, pair in ranges.items():
            low, high = (np.asarray(bound, np.float64) for bound in pair)
            # What was constant in training may still be rounded otherwise.
            slack = margin * (high - low) + 1e-6 * np.maximum(1.0, np.maximum(abs(low), abs(high)))
            self.ranges[name] = (low - slack, high + slack)

    @classmethod
    def from_spec(cls, spec: Spec, margin: float = 0.5, steps: int = 1) -> Seen:
        """What the file says: `q01`, `q99` of each observation but pictures, or else `seen_low`, `seen_high`.

        Raises:
            PolicyError: if it says neither.
        """
        ranges = {}
        for name, facts in spec.observations.items():
            if facts.get("dtype") == "uint8":  # no range tells of a picture whether it is known
                continue
            low, high = (
                facts.get(key) or facts.get(other) for key, other in (("q01", "seen_low"), ("q99", "seen_high"))
            )
            if low is None or high is None:
                raise PolicyError(f"the file does not say which '{name}' training has seen: export it again")
            ranges[name] = (low, high)
        return cls(ranges, margin, steps)

    def outside(self, obs: Any) -> bool:
        """Whether the newest observation, name -> (D,) or (T, D), is none that training has seen."""
        try:
            return not all(self._inside(np.asarray(obs[name], np.float64), *pair) for name, pair in self.ranges.items())
        except (KeyError, TypeError, ValueError, IndexError):
            return True

    def _inside(self, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
        newest = value.reshape(-1, *low.shape)[-1]
        return bool(((newest >= low) & (newest <= high)).all())  # NaN is not


def _column(what: str, value: PerElement, names: Sequence[str], unbounded: float) -> list[float]:
    """One number per element."""
    if isinstance(value, Mapping):
        column = [unbounded] * len(names)
        for name, number in value.items():
            column[_index(what, name, names)] = _number(f"{what} of '{name}'", number, unbounded)
        return column
    if not isinstance(value, (list, tuple, np.ndarray)):
        return [_number(what, value, unbounded)] * len(names)
    if len(value) != len(names):
        raise PolicyError(f"{what} has {len(value)} numbers for {len(names)} elements {list(names)}")
    return [_number(f"{what} of '{name}'", number, unbounded) for name, number in zip(names, value)]


def _index(what: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise PolicyError(f"{what} names '{name}', but the action's elements are {list(names)}")
    return list(names).index(name)


def _number(what: str, value: Any, unbounded: float) -> float:
    if value is None:
        return unbounded
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or value != value:
        raise PolicyError(f"{what} must be a number, got {value!r}")
    return math.copysign(math.inf, value) if abs(value) >= HUGE else float(value)
