"""A ROS 2 node that plays a policy: topics in, commands out at a fixed rate, the gate between.

python -m noisepilot.deploy.runtime.ros2 policy.onnx --topics topics.json --gate gate.json --ros-args -r __ns:=/arm

Everything runs on one thread: what comes while the policy thinks is read before the next step. rclpy is imported when a
node starts. Shapes: A action dim.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from .control import Control
from .gate import Gate
from .limits import Limits
from .policy import Policy
from .remote import open_policy
from .ros2_topics import RELIABILITY, Topics, message_class
from .spec import PolicyError

STOP_S = 5.0
"""longest wait for a stop before the node ends"""
STALE_S = 0.5
"""oldest observation that is acted on, where no gate file says it"""
NAME = "noisepilot"
SETTINGS = ("policy", "topics", "gate", "overlay", "token")
"""parameters of the node that name files"""


class Driver:
    """The policy, its gate and its topics in a node.

    Args:
        node: from `rclpy.create_node`.
        policy: what acts.
        topics: what it sees, and where commands go.
        gate: what every command passes; its rate is the node's.

    Services `~/stop` and `~/reset` (std_srvs/Trigger) latch and release the gate; so does true on `~/stop`
    (std_msgs/Bool) latch it. After a release the policy plans anew, from where the robot was told to be.
    """

    def __init__(self, node: Any, policy: Policy, topics: Topics, gate: Gate) -> None:
        self.node, self.policy, self.topics, self.gate = node, policy, topics, gate
        self.control: Control | None = None
        self.sent: np.ndarray | None = None
        self.resting = True
        """nothing is being sent, or the newest command repeated the one before"""
        self._due, self._said = math.nan, ""
        # Here, so that no message grows old meanwhile.
        Control(policy, _nothing(policy), 0, self.now, hz=gate.hz).warm_up()
        for source in topics.sources:
            kind = message_class(source.kind)
            node.create_subscription(kind, source.topic, lambda m, s=source: s.take(m, self.now()), qos(source.qos))
        self._publishers = [
            (sink, node.create_publisher(message_class(sink.kind), sink.topic, qos(sink.qos))) for sink in topics.sinks
        ]
        node.create_service(message_class("std_srvs/Trigger"), "~/stop", self._stop)
        node.create_service(message_class("std_srvs/Trigger"), "~/reset", self._reset)
        node.create_subscription(message_class("std_msgs/Bool"), "~/stop", self._told, qos("reliable"))
        self.timer = node.create_timer(1 / gate.hz, self.tick)

    def now(self) -> float:
        """Seconds by the node's clock, which may be a simulator's."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def tick(self) -> None:
        """One control step. Before every topic has spoken nothing is sent."""
        late, log = self._lateness(), self.node.get_logger()
        if self.control is None and (missing := self.topics.missing()):
            log.warning(f"waiting: {missing}", throttle_duration_sec=1.0)
            return
        before = dict(self.gate.counts)
        try:
            action = self._decide(late)
        except Exception as error:  # whatever fails, a robot that moves must be brought to a stop
            log.error(f"{error}", throttle_duration_sec=1.0)
            if self.sent is None:
                return
            action = self.gate.step(None, None, self.topics.age(self.now()), late).action
        stamp = self.node.get_clock().now().to_msg()
        for sink, publisher in self._publishers:
            publisher.publish(sink.message(action, stamp))
        self.resting = self.sent is not None and bool(np.array_equal(action, self.sent))
        self.sent = action
        self._say(" ".join(event for event, count in self.gate.counts.items() if count != before.get(event, 0)))

    def _decide(self, late: float) -> np.ndarray:
        obs = self.topics.observe()
        if self.control is None:
            self.control = self._begin(obs)
        else:
            self.control.observe(obs)
        now = self.now()
        self.control.seen_at = now - self.topics.age(now)
        return self.control.next_action(late)

    def _begin(self, obs: dict[str, np.ndarray]) -> Control:
        """Fresh history and chunk; the gate goes on from where the robot was told to be, or is."""
        control = Control(self.policy, obs, time.monotonic_ns(), self.now, hz=self.gate.hz, gate=self.gate)
        position = self.topics.rest() if self.sent is None else self.sent
        if position is not None:
            self.gate.start(position.tolist())
        return control

    def _lateness(self) -> float:
        """Seconds since this step was due on the grid of steps; lost time is not made up."""
        now, period = self.now(), 1 / self.gate.hz
        due = now if math.isnan(self._due) or now < self._due - 2 * period else self._due
        late = max(0.0, now - due)
        self._due = due + period * (1 + late // period)
        return late

    def _say(self, events: str) -> None:
        if events != self._said:
            self._said = events
            self.node.get_logger().info(f"gate: {events or 'passes'}")

    def _stop(self, _: Any, response: Any) -> Any:
        self.gate.stop("stop")
        response.success, response.message = True, "stopping; call reset to go on"
        return response

    def _reset(self, _: Any, response: Any) -> Any:
        if not self.resting:
            response.success, response.message = False, "the robot still moves: call stop, and reset when it stands"
            return response
        self.gate.reset()
        self.control = None
        response.success, response.message = True, "the policy plans anew"
        return response

    def _told(self, message: Any) -> None:
        if message.data:
            self.gate.stop("stop")


def _nothing(policy: Policy) -> dict[str, np.ndarray]:
    known = policy.spec.observations.items()
    return {name: np.zeros((1, *facts["shape"][1:]), facts.get("dtype", "float32")) for name, facts in known}


def qos(kind: str) -> Any:
    """The newest message alone, sent once (`sensor`) or until it arrives (`reliable`)."""
    found = import_module("rclpy.qos")
    return found.QoSProfile(depth=1, reliability=getattr(found.ReliabilityPolicy, RELIABILITY[kind]))


def build(node: Any, words: argparse.Namespace) -> Driver:
    """The driver that parameters of the node describe; the command line's words are their defaults.

    Raises:
        PolicyError: for files that are missing or do not fit each other.
    """
    named = {name: node.declare_parameter(name, getattr(words, name) or "").value for name in SETTINGS}
    hz = float(node.declare_parameter("hz", float(words.hz)).value)
    for name in ("policy", "topics"):
        if not named[name]:
            raise PolicyError(f"the {name} is missing: give {'POLICY' if name == 'policy' else '--topics FILE'}")
    policy = open_policy(named["policy"], token=_word(named["token"]), overlay=named["overlay"] or None)
    hz = hz or policy.spec.control_hz
    if not hz > 0:
        raise PolicyError(f"the control rate is {hz:g} Hz: give a positive one with --hz")
    topics = Topics(named["topics"], policy.spec, hz)
    if named["gate"]:
        gate = Gate.load(named["gate"], policy.spec, hz)
    else:
        gate = Gate(Limits.from_spec(policy.spec), hz, stale_s=STALE_S)
    rates = any(sink.kind == "geometry_msgs/TwistStamped" for sink in topics.sinks)
    if gate.safe is None and (rates or (policy.spec.action.get("convention") or {}).get("mode") == "delta"):
        raise PolicyError(
            "commands are velocities or steps, and the newest repeated is no stop: give a --gate with `safe`"
        )
    return Driver(node, policy, topics, gate)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code. A signal stops the robot first, within the gate's bounds."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        _parse(["--help"])
    try:
        rclpy = import_module("rclpy")
    except ImportError:
        print("error: rclpy is missing: source ROS 2's setup, and use the Python it is for", file=sys.stderr)
        return 2
    parsed = _parse(import_module("rclpy.utilities").remove_ros_args(args=["", *words])[1:])
    # Not rclpy's handlers: they end all publishing before the robot stands.
    rclpy.init(args=words, signal_handler_options=import_module("rclpy.signals").SignalHandlerOptions.NO)
    node = rclpy.create_node(NAME)
    try:
        driver = build(node, parsed)
        node.get_logger().info(f"{parsed.policy} at {driver.gate.hz:g} Hz")
        spin(rclpy, driver)
    except PolicyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        node.destroy_node()
        rclpy.shutdown()
    return 0


def spin(rclpy: Any, driver: Driver) -> None:
    """Until SIGINT or SIGTERM, and then until the robot's commands rest or STOP_S have passed."""
    told: list[float] = []
    old = {number: signal.signal(number, lambda *_: told.append(time.monotonic())) for number in _SIGNALS}
    try:
        while not told and rclpy.ok():
            rclpy.spin_once(driver.node, timeout_sec=0.1)
        driver.gate.stop("shutdown")
        driver.resting = driver.sent is None
        while not driver.resting and rclpy.ok() and time.monotonic() < told[0] + STOP_S:
            rclpy.spin_once(driver.node, timeout_sec=0.1)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _word(path: str) -> str | None:
    if not path:
        return None
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        raise PolicyError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "ros2", description="Play a policy in a ROS 2 node. Options are its parameters too."
    )
    parser.add_argument("policy", nargs="?", default="", help="exported file, or address of `noisepilot serve`")
    parser.add_argument("--topics", help="JSON file: which topic is which observation, and where commands go")
    parser.add_argument("--gate", help="JSON file of the safety gate")
    parser.add_argument("--overlay", help="adapter on top of the file")
    parser.add_argument("--token", help="file with the word that the server wants")
    parser.add_argument("--hz", type=float, default=0.0, help="control rate; 0: the one the policy was made for")
    return parser.parse_args(list(words))


if __name__ == "__main__":
    sys.exit(main())
