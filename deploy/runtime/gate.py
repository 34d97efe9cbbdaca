"""The gate between a policy and a robot: whatever comes in, what goes out keeps every bound.

gate = Gate(Limits.from_spec(policy.spec, velocity=1.0, acceleration=5.0), hz=50, stale_s=0.1)
action, events = gate.step(action, obs, obs_age_s=0.02)

A defence in depth, not a certified safety function: it sees commands and observations, not the robot, and runs in
the process that it guards. Bounds hold for the commands, one per period 1 / hz: `motion.py` says how and why.
Shapes: A action dim.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from .limits import HUGE, Limits, Seen, Workspace
from .motion import Axis
from .spec import PolicyError, Spec

TRIPS = ("invalid", "stale", "late", "starved", "ood")
Callback = Callable[[str, Optional[np.ndarray]], Any]
"""(trip, newest command (A,) or None) -> the action to approach instead"""
Reaction = Union[str, Callback]  # evaluated, on Python 3.9 too
REACTIONS = ("hold", "ramp", "stop")
"""hold: back to the newest command; ramp: to a stop, or to `safe`; stop: ramp, and stay there until `reset()`"""
STARVED_S = 1.0
"""a velocity, repeated for want of a plan, leads somewhere"""
LONGEST_STOP = 1000
"""steps of a stop that are looked at for a `Workspace`; a longer one counts as outside"""
BOUNDS = ("velocity", "acceleration", "jerk", "box")
OPTIONS = ("stale_s", "late_s", "starved_s", "safe", "reactions")


class Gated(NamedTuple):
    """One step."""

    action: np.ndarray
    """(A,) float64: send this; equal to what came in unless `events` says otherwise"""
    events: tuple[str, ...]
    """trips (TRIPS, `latched`), `workspace`, and bounds that the action would have broken: `position`, `velocity`,
    `acceleration`, `jerk`; `lookahead`: only a later stop would have, or the gate still catches up"""


class Gate:
    """A filter that is called once per control step.

    Args:
        limits: bounds per element.
        hz: control rate; all rates are of the commands at this rate.
        stale_s: an observation older than this trips `stale`; None: never.
        late_s: a deadline missed by more than this trips `late`; None: never.
        starved_s: commands that repeat the last one, for want of a plan, for longer than this trip `starved`; None:
            never.
        seen: observations outside of it trip `ood`; None: never.
        reactions: trip -> one of REACTIONS or a callback; by default `hold` for `invalid`, `ramp` for the others.
            The strictest wins. A callback that fails or returns no action ramps.
        safe: action to ramp to, within the limits; None: to a stop, wherever that is.
        workspace: commands are refused, and the robot brakes, if they or a stop after them would leave it.

    Raises:
        PolicyError: for settings that contradict themselves or each other.
    """

    def __init__(
        self,
        limits: Limits,
        hz: float,
        *,
        stale_s: float | None = None,
        late_s: float | None = None,
        starved_s: float | None = STARVED_S,
        seen: Seen | None = None,
        reactions: Mapping[str, Reaction] | None = None,
        safe: Sequence[float] | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        for what, value in (("hz", hz), ("stale_s", stale_s), ("late_s", late_s), ("starved_s", starved_s)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
                raise PolicyError(f"{what} must be a positive number, got {value!r}")
        self.hz, self.stale_s, self.late_s, self.starved_s = hz, stale_s, late_s, starved_s
        self.seen, self.workspace = seen, workspace
        self.axes = [Axis(1 / hz, *row) for row in limits.rows()]
        self.reactions = {"invalid": "hold", **_checked_reactions(reactions or {})}
        self.safe = None if safe is None else self._position("safe", safe)
        self.counts: Counter[str] = Counter()
        self.steps = 0
        self.latched: str | None = None
        """the trip that stopped the gate for good"""
        self._strange = 0  # observations outside of training, in a row
        self.start()

    @classmethod
    def load(cls, path: str | Path, spec: Spec, hz: float) -> Gate:
        """The gate that a JSON file describes, within the limits of an exported policy.

        Keys, all optional: those of BOUNDS and OPTIONS, and `ood`, an object with `margin` and `steps`.

        Raises:
            PolicyError: if the file is unreadable or says what is not known.
        """
        try:
            facts = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise PolicyError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not JSON'}") from None
        ood = facts.get("ood") if isinstance(facts, dict) else None
        for what, given, known in ((path, facts, (*BOUNDS, *OPTIONS, "ood")), ("ood", ood or {}, ("margin", "steps"))):
            if not isinstance(given, dict):
                raise PolicyError(f"{what} must hold a JSON object")
            for key in given:
                if key not in known:
                    raise PolicyError(f"{path} has an unknown key '{key}': known are {', '.join(known)}")
        limits = Limits.from_spec(spec, **{key: facts[key] for key in BOUNDS if key in facts})
        options = {key: facts[key] for key in OPTIONS if key in facts}
        return cls(limits, hz, seen=None if ood is None else Seen.from_spec(spec, **ood), **options)

    def start(self, position: Sequence[float] | None = None) -> None:
        """A new motion: forget what was sent. A latch stays.

        Without `position`, where the robot rests as an action (A,), the first command is bounded by the limits
        of the position alone.
        """
        rests = [None] * len(self.axes) if position is None else self._position("position", position)
        for axis, x in zip(self.axes, rests):
            axis.start(x)
        self._held: list[float] | None = None
        self._source: Any = None

    def stop(self, reason: str = "stop") -> None:
        """Trip for good, from outside."""
        self.latched = self.latched or reason

    def reset(self) -> None:
        """Release a latched stop."""
        self.latched, self._strange = None, 0

    def step(
        self, action: Any, obs: Any = None, obs_age_s: float = 0.0, late_s: float = 0.0, starved_s: float = 0.0
    ) -> Gated:
        """The command to send now.

        Args:
            action: (A,); anything else trips `invalid`.
            obs: a new observation, name -> (D,) or (T, D), for `ood`; None: no new one.
            obs_age_s: how old the newest observation is.
            late_s: by how much the deadline before this step was missed.
            starved_s: for how long there has been no plan and the last command was repeated.

        Raises:
            PolicyError: if nothing safe is known to send: the first action is refused and there is neither a
                position from `start` nor `safe`.
        """
        values = self._values(action)
        events = self._trips(values, obs, obs_age_s, late_s, starved_s)
        source, wanted = self._decide(events, values)
        if source != self._source:  # another's motion does not go on
            self._source = source
            for axis in self.axes:
                axis.retarget()
        command = self._stopping(events) if wanted is None else [a.toward(y) for a, y in zip(self.axes, wanted)]
        if self.workspace is not None and not self._stop_inside(command):
            events.append("workspace")
            wanted, command = None, self._stopping(events)
        elif source == "action" and command != wanted:
            events += {a.reason(y): 0 for a, y, x in zip(self.axes, wanted or (), command) if x != y}
        for axis, x, y in zip(self.axes, command, wanted or [None] * len(command)):
            axis.send(x, y)
        self.steps += 1
        self.counts.update(events)
        return Gated(np.array(command), tuple(events))

    def report(self) -> dict[str, Any]:
        """JSON values: steps, in how many of them each event happened, and which trip has latched."""
        return {"steps": self.steps, "events": dict(sorted(self.counts.items())), "latched": self.latched}

    def _trips(
        self, values: list[float] | None, obs: Any, obs_age_s: float, late_s: float, starved_s: float
    ) -> list[str]:
        if self.seen is not None and obs is not None:
            self._strange = self._strange + 1 if self.seen.outside(obs) else 0
        tripped = (
            values is None,
            self.stale_s is not None and _over(obs_age_s, self.stale_s),
            self.late_s is not None and _over(late_s, self.late_s),
            self.starved_s is not None and _over(starved_s, self.starved_s),
            self.seen is not None and self._strange >= self.seen.steps,
        )
        return [trip for trip, yes in zip(TRIPS, tripped) if yes]

    def _decide(self, events: list[str], values: list[float] | None) -> tuple[str, list[float] | None]:
        """Whose command is approached, and which; None: none, stop. A latched gate adds its event."""
        reactions = {trip: self.reactions.get(trip, "ramp") for trip in events}
        for trip, reaction in reactions.items():
            if reaction == "stop":
                self.stop(trip)
        if self.latched is not None:
            events.append("latched")
        if self.latched is None and not reactions:
            self._held = None
            return "action", values
        if self.latched is None and "ramp" not in reactions.values():
            for trip, reaction in reactions.items():
                if callable(reaction):
                    answer = self._ask(reaction, trip)
                    return ("callback", answer) if answer is not None else ("ramp", self.safe)
            self._held = self._held or self._last()
            return "hold", self._held or self.safe
        return "ramp", self.safe

    def _ask(self, callback: Callback, trip: str) -> list[float] | None:
        last = self._last()
        try:
            return self._values(callback(trip, None if last is None else np.array(last)))
        except Exception:  # the robot must not go on because its emergency plan is broken
            return None

    def _stopping(self, events: Sequence[str]) -> list[float]:
        last = self._last()
        if last is None and self.safe is not None:
            return self.safe
        if last is None:
            raise PolicyError(
                f"the first action is refused ({', '.join(events)}) and there is none before it to hold: check the "
                "policy, give the gate a `safe` action, or call start(position)"
            )
        return [axis.brake(x, axis.v, axis.a) for axis, x in zip(self.axes, last)]

    def _stop_inside(self, command: list[float]) -> bool:
        # Whether the command and the whole stop after it lie in the workspace.
        assert self.workspace is not None
        states = [(x, *axis.after(x)) for axis, x in zip(self.axes, command)]
        for _ in range(LONGEST_STOP):
            if not self.workspace.contains([x for x, _, _ in states]):
                return False
            following = []
            for axis, (x, v, a) in zip(self.axes, states):
                x1 = axis.brake(x, v, a)
                v1 = (x1 - x) / axis.h
                following.append((x1, v1, (v1 - v) / axis.h))
            if all(v == 0 and a == 0 for _, v, a in following):
                return True
            states = following
        return False

    def _last(self) -> list[float] | None:
        last = [axis.x for axis in self.axes if axis.x is not None]
        return last if len(last) == len(self.axes) else None

    def _position(self, what: str, position: Any) -> list[float]:
        values = self._values(position)
        if values is None or values != [axis.clamp(x) for axis, x in zip(self.axes, values)]:
            raise PolicyError(f"{what} must be {len(self.axes)} numbers within the limits, got {position!r}")
        if self.workspace is not None and not self.workspace.contains(values):
            raise PolicyError(f"{what} lies outside of the workspace: {position!r}")
        return values

    def _values(self, action: Any) -> list[float] | None:
        """The action as numbers, None if it is none."""
        try:
            array = np.asarray(action)
            if array.shape != (len(self.axes),) or array.dtype.kind not in "fiu":
                return None
            values = array.astype(np.float64).tolist()
        except Exception:  # strange objects throw strange errors
            return None
        return values if all(abs(value) < HUGE for value in values) else None  # NaN is not


def _over(value: Any, limit: float) -> bool:
    # What is not a number is no proof of being in time.
    try:
        return not float(value) <= limit
    except (TypeError, ValueError):
        return True


def _checked_reactions(reactions: Mapping[str, Reaction]) -> Mapping[str, Reaction]:
    if not isinstance(reactions, Mapping):
        raise PolicyError(f"reactions must map trips to reactions, got {reactions!r}")
    for trip, reaction in reactions.items():
        if trip not in TRIPS:
            raise PolicyError(f"there is no trip '{trip}' to react to: trips are {', '.join(TRIPS)}")
        if not callable(reaction) and reaction not in REACTIONS:
            raise PolicyError(f"no reaction {reaction!r} to '{trip}': reactions are {', '.join(REACTIONS)}")
    return reactions
