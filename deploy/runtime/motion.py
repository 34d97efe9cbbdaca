"""The next command of one action element, under bounds on position, velocity, acceleration and jerk at once.

With the period h, v = (x - x before) / h, a = (v - v before) / h, j = (a - a before) / h, of the commands sent.
Moving towards a wall can make the bounds contradict each other later. So a command is allowed only if a complete
stop after it keeps every bound; then the next step of that stop is always allowed too, and none is ever broken.

A stop is this rule, step by step (V, A, J bound |v|, |a|, |j|; q = J h):

    a' = clip(-fastest(v, q), max(a - q, -A), min(a + q, A)),    v' = v + h a',    x' = x + h v'

where s = fastest(d, q) solves h (s + (s - q) + (s - 2q) + ... while positive) = d: the rate that shrinks to 0 in
changes of q just as d is covered. The rule brings v and a to exactly 0 as fast as J and A allow. How far it goes
has a closed form (`Axis.rest`). Units are the action's own, seconds, and 1 / s.
"""

from __future__ import annotations

import math
from collections.abc import Callable

INF = math.inf
EPS = 2.0**-52
SAME = 2.0**-30
"""relative difference that counts as rounding"""
FOLLOW = 0.3
"""share of each new difference in the velocity of what is asked for: less lags behind, more passes noise on"""
PRECISION = 1e-9
SOLVER_STEPS = 60


def fastest(d: float, q: float, h: float) -> float:
    """The rate from which changes of at most q per step lead to 0 within the distance d; odd in d."""
    if d < 0:
        return -fastest(-d, q, h)
    if q == INF:
        return d / h
    ratio = 8 * d / (h * q)
    if ratio > 1e24:  # so many steps that discrete and continuous time agree to rounding
        return math.sqrt(2 * q / h) * math.sqrt(d)
    n = math.floor((math.sqrt(1 + ratio) - 1) / 2)
    return (d / h + q * n * (n + 1) / 2) / (n + 1)


class Axis:
    """One element: its bounds and the motion of what was sent so far. Bounds may be infinite.

    `x`, `v`, `a` are of the newest command; x is None before the first.
    """

    def __init__(
        self, h: float, low: float = -INF, high: float = INF, velocity: float = INF, acceleration: float = INF,
        jerk: float = INF,
    ) -> None:  # fmt: skip
        self.h, self.low, self.high = h, low, high
        self.velocity, self.acceleration, self.jerk = velocity, acceleration, jerk
        self.dv, self.da = acceleration * h, jerk * h  # largest changes of v and a per step
        self.start(None)

    def start(self, x: float | None) -> None:
        """Forget the motion; x is where the robot rests, if known."""
        self.x, self.v, self.a = x, 0.0, 0.0
        self.wanted: float | None = None  # the newest command that was asked for
        self.follow, self.step = 0.0, 0.0  # its velocity, smoothed and not
        self.on_track = True  # it was sent as it was

    def send(self, x: float, wanted: float | None) -> None:
        """Take note that x is sent; `wanted` was asked for, None: a stop."""
        self.follow, self.step = (0.0, 0.0) if wanted is None else self._follow(wanted)
        self.x, self.v, self.a = x, *self.after(x)
        self.wanted = wanted
        self.on_track = wanted is not None and abs(x - wanted) <= SAME * (abs(x) + abs(wanted))

    def retarget(self) -> None:
        """From now on someone else says what is wanted: the motion of what was wanted so far does not go on."""
        self.wanted, self.follow, self.step = None, 0.0, 0.0
        self.on_track = self.x is None or self.v == self.a == 0

    def after(self, x: float) -> tuple[float, float]:
        """Velocity and acceleration once x is sent."""
        if self.x is None:
            return 0.0, 0.0
        v = (x - self.x) / self.h
        return v, (v - self.v) / self.h

    def clamp(self, y: float) -> float:
        """Y within the limits of the position."""
        return min(max(y, self.low), self.high)

    def brake(self, x: float, v: float, a: float) -> float:
        """The next command of a stop."""
        v1 = v + self.h * self._braking(v, a)
        if abs(v1) <= 4 * EPS * abs(v):
            v1 = 0.0
        return self._within(x, x + self.h * v1)

    def toward(self, y: float) -> float:
        """The allowed command that gets to y soonest: y itself, or one that approaches it without overshooting.

        Whoever lags behind closes in relative to the motion of what is asked for, so a moving target is caught.
        """
        if self.x is None:
            return self.clamp(y)
        w, y = self._follow(y)[0], self.clamp(y)
        x1 = self._toward(self.x, y, w) if self.jerk == INF else self._toward_smoothly(self.x, y, w)
        return y if x1 == y else self._within(self.x, x1)

    def reason(self, y: float) -> str:
        """Which bound y would break if it were sent now; `lookahead` if only the stop after it would."""
        if not self.low <= y <= self.high:
            return "position"
        v, a = self.after(y)
        for name, value, bound in (
            ("velocity", v, self.velocity),
            ("acceleration", a, self.acceleration),
            ("jerk", (a - self.a) / self.h, self.jerk),
        ):
            if abs(value) > bound:
                return name
        return "lookahead"

    def rest(self, v: float, a: float) -> tuple[float, float, float]:
        """Lowest, highest and last position of a stop from here, relative to the position now; jerk is bounded."""
        h, q = self.h, self.da
        n, r = divmod(abs(a), q)
        coasting = h * n * (r + q * (n - 1) / 2)  # what v gains until a is 0
        if v + math.copysign(coasting, a) < 0:
            lowest, highest, end = self.rest(-v, -a)
            return -highest, -lowest, -end
        # a falls by q per step, n times: until it is -A, or until the next step would turn the motion around.
        r = -a % q
        c = r * (q - r) / (2 * q)
        n = math.floor(
            min(a / q + math.sqrt(max(0.0, (v / h + a * a / (2 * q) - a / 2 - c) / q)), (a + self.acceleration) / q)
        )
        n = max(n, 0)
        x1, v1 = self._ramp(v, a, n)
        lowest = 0.0
        if v < 0:  # it turns by itself: a > 0 lasts long enough
            b = a - q / 2
            turn = math.ceil((b - math.sqrt(max(0.0, b * b + 2 * q * v / h))) / q) - 1
            lowest = min(0.0, self._ramp(v, a, max(turn, 0))[0])
        end = x1 + self._rest_down(max(v1, 0.0))
        return lowest, max(0.0, end), end

    def _follow(self, y: float) -> tuple[float, float]:
        # Velocity of what is asked for, and its newest difference. A jump is no motion: two steps must agree.
        if self.wanted is None:
            return 0.0, 0.0
        new, old = min(max((y - self.wanted) / self.h, -self.velocity), self.velocity), self.step
        agreed = min(new, old, key=abs) if new * old > 0 else 0.0
        return self.follow + FOLLOW * (agreed - self.follow), new

    def _ramp(self, v: float, a: float, n: int) -> tuple[float, float]:
        """Displacement and velocity after n steps in which a falls by q each."""
        h, q = self.h, self.da
        velocity = v + h * (n * a - q * n * (n + 1) / 2)
        return h * (n * v + h * (a * n * (n + 1) / 2 - q * n * (n + 1) * (n + 2) / 6)), velocity

    def _rest_down(self, v: float) -> float:
        # From v >= 0 the rest of a stop: k steps at -A, then a returns to 0 by q per step.
        h, q, most = self.h, self.da, self.acceleration
        distance, s = 0.0, fastest(v, q, h)
        if s > most:
            m, r = divmod(most, q)
            k = math.ceil((v - h * (m + 1) * (r + q * m / 2)) / (h * most))
            distance = h * (k * v - h * most * k * (k + 1) / 2)
            s = fastest(max(v - k * h * most, 0.0), q, h)
        n, r = divmod(s, q)
        return distance + h * h * (r * n * (n + 1) / 2 + q * (n - 1) * n * (n + 1) / 6)

    def _braking(self, v: float, a: float) -> float:
        lowest, highest = max(a - self.da, -self.acceleration), min(a + self.da, self.acceleration)
        return min(max(-fastest(v, self.da, self.h), lowest), highest)

    def _toward(self, x: float, y: float, w: float) -> float:
        # Without a bound on jerk everything is an interval of the next velocity.
        h, dv, top = self.h, self.dv, self.velocity
        lowest, highest = max(self.v - dv, -top), min(self.v + dv, top)
        direct, slack = (y - x) / h, 8 * EPS * (abs(x) + abs(y)) / h
        room = self.high - x if direct > 0 else x - self.low
        if (
            lowest - slack <= direct <= highest + slack
            and abs(direct) <= fastest(room, dv, h) + slack
            and (self.on_track or abs(direct - w) <= dv)
        ):
            return y
        below, above = -fastest(x - self.low, dv, h), fastest(self.high - x, dv, h)
        closing = w + fastest(y - h * w - x, dv, h)
        return x + h * min(max(closing, lowest, below), highest, above)

    def _toward_smoothly(self, x: float, y: float, w: float) -> float:
        h, q, top = self.h, self.da, self.velocity
        stop = self._braking(self.v, self.a)
        lowest = max(self.a - q, -self.acceleration, -fastest(max(top + self.v, 0.0), q, h))
        highest = min(self.a + q, self.acceleration, fastest(max(top - self.v, 0.0), q, h))
        slack = 8 * EPS * (abs(x) + abs(y))
        direct = (y - x) / h
        a1 = (direct - self.v) / h
        if (
            lowest - slack / h**2 <= a1 <= highest + slack / h**2
            and (self.on_track or self._stays(direct - w, a1))
            and self._misses(y, direct, a1) <= 16 * slack
        ):
            return y

        def beyond(a1: float) -> float:
            # Positive: the stop after a1 breaks a limit or ends, relative to what moves with w, beyond y.
            v1 = self.v + h * a1
            x1 = x + h * v1
            return max(self._misses(x1, v1, a1), side * ahead(x1, v1, a1))

        def ahead(x1: float, v1: float, a1: float) -> float:
            return x1 - y if self.on_track else x1 + self.rest(v1 - w, a1)[2] - y

        v1 = self.v + h * stop
        side = -1.0 if ahead(x + h * v1, v1, stop) > 0 else 1.0
        limit = max(highest, stop) if side > 0 else min(lowest, stop)
        a1 = _furthest(beyond, stop, limit, h * h)
        return x + h * (self.v + h * a1)

    def _stays(self, behind: float, a1: float) -> bool:
        # Whether what moves steadily can be followed exactly after meeting it at this difference of velocities.
        a2 = -behind / self.h
        return abs(a2) <= min(self.da, self.acceleration) and abs(a2 - a1) <= self.da

    def _misses(self, x1: float, v1: float, a1: float) -> float:
        # By how much the stop after this state leaves the limits; negative inside.
        lowest, highest, _ = self.rest(v1, a1)
        return max(x1 + highest - self.high, self.low - x1 - lowest)

    def _within(self, x: float, x1: float) -> float:
        step = self.velocity * self.h
        return self.clamp(min(max(x1, x - step), x + step))


def _furthest(beyond: Callable[[float], float], good: float, limit: float, unit: float) -> float:
    """The value furthest from `good` towards `limit` where `beyond` is not positive; `good` if there is none.

    False position with the Illinois rule, to a relative precision; `unit` is how `beyond` scales with the value.
    """
    f_limit = beyond(limit)
    if f_limit <= 0:
        return limit
    f_good = kept = beyond(good)
    fine, side = PRECISION * abs(limit - good), 0
    for _ in range(SOLVER_STEPS):
        if kept >= -fine * unit or abs(limit - good) <= fine:
            break
        middle = good + (limit - good) * f_good / (f_good - f_limit)
        f = beyond(middle)
        if f <= 0:
            good, f_good, kept = middle, f, f
            f_limit, side = (f_limit / 2 if side < 0 else f_limit), -1
        else:
            limit, f_limit = middle, f
            f_good, side = (f_good / 2 if side > 0 else f_good), 1
    return good
