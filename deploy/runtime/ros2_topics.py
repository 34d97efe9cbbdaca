"""Which ROS 2 topic is which observation, where commands go, and what is read from and written into messages.

{"observations": {"state": [{"topic": "/joint_states", "type": "sensor_msgs/JointState", "names": ["a", "b"]}]},
 "action": {"topic": "/commands", "type": "std_msgs/Float64MultiArray"}}

Messages are taken as they are, by their attributes: this file imports nothing of ROS.
Shapes: D elements, A action dim, H and W of a picture, C channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .spec import PolicyError, Spec

FIELDS = ("position", "velocity", "effort")
RELIABILITY = {"sensor": "BEST_EFFORT", "reliable": "RELIABLE"}
"""of `qos`; a best-effort subscription also hears reliable publishers, not the other way round"""
ENCODINGS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0,)),
}
"""bytes per pixel, and which of them are the channels"""
Entry = Mapping[str, Any]
Read = Callable[[Any], np.ndarray]


# From messages


def read_joints(message: Any, names: Sequence[str], field: str) -> np.ndarray:
    """One number per name, wherever it stands in the message. Raises ValueError for a joint that is not there."""
    values, found = getattr(message, field), {name: i for i, name in enumerate(message.name)}
    lacking = [name for name in names if found.get(name, len(values)) >= len(values)]
    if lacking:
        raise ValueError(f"no {field} of joint '{lacking[0]}'")
    return np.array([values[found[name]] for name in names], np.float64)


def read_picture(message: Any) -> np.ndarray:
    """(H, W, C) bytes, channels red, green, blue. Raises ValueError for another encoding, or missing bytes."""
    if message.encoding not in ENCODINGS:
        raise ValueError(f"encoding '{message.encoding}', known are {', '.join(ENCODINGS)}")
    size, channels = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    if step < width * size or len(data) < height * step:
        raise ValueError(f"{len(data)} bytes and rows of {step} for {height} x {width} {message.encoding}")
    rows = data[: height * step].reshape(height, step)[:, : width * size]  # rows may end in padding
    return rows.reshape(height, width, size)[:, :, list(channels)]


def read_pose(message: Any) -> np.ndarray:
    """x, y, z, and the quaternion x, y, z, w."""
    at, turn = message.pose.position, message.pose.orientation
    return np.array([at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w], np.float64)


def read_twist(message: Any) -> np.ndarray:
    """Linear x, y, z and angular x, y, z."""
    move, turn = message.twist.linear, message.twist.angular
    return np.array([move.x, move.y, move.z, turn.x, turn.y, turn.z], np.float64)


READERS: dict[str, Read] = {
    "sensor_msgs/Image": read_picture,
    "std_msgs/Float64MultiArray": lambda message: np.array(message.data, np.float64),
    "geometry_msgs/PoseStamped": read_pose,
    "geometry_msgs/TwistStamped": read_twist,
}


class Source:
    """A topic's newest value, and how old it is.

    Raises:
        PolicyError: for an entry that is incomplete or says what is not known.
    """

    def __init__(self, entry: Any, what: str, names: Sequence[str] = ()) -> None:
        _check(what, entry, ("topic", "type"), ("qos", "elements", "names", "field"))
        self.topic, self.kind, self.qos = str(entry["topic"]), plain(entry["type"]), _qos(what, entry, "sensor")
        self.value: np.ndarray | None = None
        self.stamped = self.received = -math.inf
        self.fault = ""
        self._read = _reader(self.kind, entry, what, names)

    def take(self, message: Any, now: float) -> None:
        """Note a message. One that cannot be read counts for nothing, so the value before it grows old."""
        try:
            self.value, self.fault = self._read(message), ""
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            self.fault = f"{self.topic}: {error}"
            return
        stamp = getattr(getattr(message, "header", None), "stamp", None)
        seconds = 0.0 if stamp is None else stamp.sec + 1e-9 * stamp.nanosec
        self.received, self.stamped = now, seconds or now

    def age(self, now: float) -> float:
        """Seconds since the stamp; since it came, where there is no stamp or one of the future."""
        if now < self.received:  # the clock was set back: nothing is known
            return math.inf
        return max(now - self.stamped, now - self.received)


# To messages


class Sink:
    """A topic that takes some elements of the action, or all.

    Raises:
        PolicyError: for an entry that is incomplete or does not fit the action.
    """

    def __init__(self, entry: Any, spec: Spec, period: float) -> None:
        _check("action", entry, ("topic", "type"), ("qos", "of", "elements", "names", "frame"))
        self.topic, self.kind, self.qos = str(entry["topic"]), plain(entry["type"]), _qos("action", entry, "reliable")
        dim, names = spec.action["shape"][1], spec.action.get("names") or ()
        self.of = list(entry.get("of", range(dim)))
        if not self.of or not all(isinstance(i, int) and 0 <= i < dim for i in self.of):
            raise PolicyError(f"action `of` {self.of} must list elements of {dim}, counted from 0")
        self.names = list(entry.get("names") or ([names[i] for i in self.of] if names else []))
        self.elements, self.frame, self.period = (
            list(entry.get("elements", range(len(self.of)))),
            entry.get("frame", ""),
            period,
        )
        if self.kind not in WRITERS:
            raise PolicyError(f"action has type '{self.kind}': known are {', '.join(WRITERS)}")
        if self.kind == "trajectory_msgs/JointTrajectory" and len(self.names) != len(self.of):
            raise PolicyError(f"action needs {len(self.of)} `names` of joints, got {self.names}")
        places = len(self.elements) == len(self.of) and all(i in range(6) for i in self.elements)
        if self.kind == "geometry_msgs/TwistStamped" and not places:
            raise PolicyError(f"action `elements` {self.elements} must place {len(self.of)} numbers among a twist's 6")

    def message(self, action: np.ndarray, stamp: Any) -> Any:
        """What to publish of an action (A,); `stamp`: the present, as a message."""
        return WRITERS[self.kind](self, [float(action[i]) for i in self.of], stamp)


def _array(sink: Sink, values: list[float], _: Any) -> Any:
    message = message_class(sink.kind)()
    message.data = values
    return message


def _trajectory(sink: Sink, values: list[float], _: Any) -> Any:
    # Its stamp stays 0: controllers then begin at once, and shall be there one period later.
    message, point = message_class(sink.kind)(), message_class("trajectory_msgs/JointTrajectoryPoint")()
    point.positions = values
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(1e9 * sink.period), 10**9)
    message.joint_names, message.points = sink.names, [point]
    return message


def _twist(sink: Sink, values: list[float], stamp: Any) -> Any:
    message = message_class(sink.kind)()
    message.header.stamp, message.header.frame_id = stamp, sink.frame
    six = dict(zip(sink.elements, values))
    for part, first in ((message.twist.linear, 0), (message.twist.angular, 3)):
        part.x, part.y, part.z = (six.get(first + i, 0.0) for i in range(3))
    return message


WRITERS = {
    "std_msgs/Float64MultiArray": _array,
    "trajectory_msgs/JointTrajectory": _trajectory,
    "geometry_msgs/TwistStamped": _twist,
}


class Topics:
    """The map of one policy. An observation's sources are joined in their order.

    Args:
        path: JSON file.
        spec: of the policy.
        hz: control rate.

    Raises:
        PolicyError: for a file that is unreadable, or does not fit the policy.
    """

    def __init__(self, path: str | Path, spec: Spec, hz: float) -> None:
        try:
            facts = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise PolicyError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not JSON'}") from None
        _check(str(path), facts, ("observations", "action"), ("start",))
        given = facts["observations"]
        _check("observations", given, tuple(spec.observations), ())
        self.spec = spec
        self.observations = {
            name: [Source(entry, f"observation '{name}'", known.get("names") or ()) for entry in _listed(given[name])]
            for name, known in spec.observations.items()
        }
        joints = spec.action.get("names") or ()
        self.start = [Source(entry, "start", joints) for entry in _listed(facts.get("start", []))]
        self.sinks = [Sink(entry, spec, 1 / hz) for entry in _listed(facts["action"])]

    @property
    def sources(self) -> list[Source]:
        """All of them."""
        return [source for sources in (*self.observations.values(), self.start) for source in sources]

    def missing(self) -> str | None:
        """Words for a source that has not spoken; None: all have."""
        silent = next((source for source in self.sources if source.value is None), None)
        return None if silent is None else silent.fault or f"nothing on {silent.topic} yet"

    def observe(self) -> dict[str, np.ndarray]:
        """Name -> (1, ...), once all sources have spoken.

        Raises:
            PolicyError: for another shape than the policy sees.
        """
        found = {}
        for name, sources in self.observations.items():
            value, shape = _joined(sources), tuple(self.spec.observations[name]["shape"][1:])
            if value.shape != shape:
                raise PolicyError(f"'{name}' has shape {value.shape} on {sources[0].topic}, the policy sees {shape}")
            found[name] = value[None]
        return found

    def age(self, now: float) -> float:
        """Of the observation's oldest source."""
        return max(source.age(now) for sources in self.observations.values() for source in sources)

    def rest(self) -> np.ndarray | None:
        """Where the robot is, as an action (A,); None: not asked for."""
        return _joined(self.start) if self.start else None


def message_class(kind: str) -> Any:
    """The class of a message or service type such as `sensor_msgs/Image`.

    Raises:
        PolicyError: if its package is not there.
    """
    package, _, name = kind.partition("/")
    try:
        return getattr(import_module(f"{package}.{'srv' if package == 'std_srvs' else 'msg'}"), name)
    except (ImportError, AttributeError):
        raise PolicyError(f"{kind} is missing: install the ROS package {package}, and source its setup") from None


def plain(kind: Any) -> str:
    """`sensor_msgs/msg/Image` and `sensor_msgs/Image` are the same."""
    return str(kind).replace("/msg/", "/")


def _reader(kind: str, entry: Entry, what: str, known: Sequence[str]) -> Read:
    if kind == "sensor_msgs/JointState":
        names, field = list(entry.get("names") or known), entry.get("field", "position")
        if not names or field not in FIELDS:
            raise PolicyError(f"{what} needs `names` of joints in the policy's order, and a `field` of {FIELDS}")
        return lambda message: read_joints(message, names, field)
    if kind not in READERS:
        raise PolicyError(f"{what} has type '{kind}': known are sensor_msgs/JointState, {', '.join(READERS)}")
    read, elements = READERS[kind], entry.get("elements")
    return read if elements is None else lambda message: read(message)[list(elements)]


def _joined(sources: Sequence[Source]) -> np.ndarray:
    values = [source.value for source in sources if source.value is not None]
    return values[0] if len(values) == 1 else np.concatenate([value.reshape(-1) for value in values])


def _listed(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def _qos(what: str, entry: Entry, default: str) -> str:
    qos = entry.get("qos", default)
    if qos not in RELIABILITY:
        raise PolicyError(f"{what} has qos '{qos}': known are {', '.join(RELIABILITY)}")
    return str(qos)


def _check(what: str, given: Any, required: Sequence[str], optional: Sequence[str]) -> None:
    if not isinstance(given, dict):
        raise PolicyError(f"{what} must be a JSON object")
    for key in required:
        if key not in given:
            raise PolicyError(f"{what} does not say '{key}': it needs {', '.join(required)}")
    for key in given:
        if key not in (*required, *optional):
            raise PolicyError(f"{what} says '{key}', which is not known: known are {', '.join((*required, *optional))}")
