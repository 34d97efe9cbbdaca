"""A stand-in for rclpy and its messages, where ROS 2 is not installed: the part that `deploy/runtime/ros2.py` uses.

Messages really pass: between nodes of one process, copied, by topic, type and reliability, into queues of the depth
asked for; callbacks run in `spin_once`, one at a time. Time stands still unless it is slept or spent. It is written
from rclpy's documentation, and a test with it is no test with ROS 2.
"""

from __future__ import annotations

import copy
import sys
from collections import deque
from types import ModuleType, SimpleNamespace
from typing import ClassVar


class Message:
    """Fields with the defaults and, roughly, the type checks of generated Python messages."""

    FIELDS: ClassVar[dict] = {}

    def __init__(self, **values):
        for name, default in self.FIELDS.items():
            object.__setattr__(self, name, copy.deepcopy(default() if callable(default) else default))
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        default = self.FIELDS[name]
        default = default() if callable(default) else default
        if isinstance(default, list):
            assert isinstance(value, list), name
        elif isinstance(default, (bool, str, int, float, Message)):
            assert isinstance(value, type(default)), (name, value)
        object.__setattr__(self, name, value)


def message(kind, /, **fields):
    return type(kind, (Message,), {"FIELDS": fields})


Stamp = message("Time", sec=0, nanosec=0)
Duration = message("Duration", sec=0, nanosec=0)
Header = message("Header", stamp=Stamp, frame_id="")
Vector = message("Vector3", x=0.0, y=0.0, z=0.0)
Quaternion = message("Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
Pose = message("Pose", position=Vector, orientation=Quaternion)
Twist = message("Twist", linear=Vector, angular=Vector)
JointState = message("JointState", header=Header, name=[], position=[], velocity=[], effort=[])
Image = message("Image", header=Header, height=0, width=0, encoding="", is_bigendian=0, step=0, data=b"")
Float64MultiArray = message("Float64MultiArray", data=[])
Bool = message("Bool", data=False)
PoseStamped = message("PoseStamped", header=Header, pose=Pose)
TwistStamped = message("TwistStamped", header=Header, twist=Twist)
JointTrajectoryPoint = message("JointTrajectoryPoint", positions=[], velocities=[], time_from_start=Duration)
JointTrajectory = message("JointTrajectory", header=Header, joint_names=[], points=[])
Trigger = type(
    "Trigger", (), {"Request": message("Request"), "Response": message("Response", success=False, message="")}
)
PACKAGES = {
    "sensor_msgs.msg": (JointState, Image),
    "std_msgs.msg": (Float64MultiArray, Bool),
    "geometry_msgs.msg": (PoseStamped, TwistStamped),
    "trajectory_msgs.msg": (JointTrajectory, JointTrajectoryPoint),
    "std_srvs.srv": (Trigger,),
}
BEST_EFFORT, RELIABLE = "best effort", "reliable"


class Rclpy:
    """One process: its clock, its nodes and what passes between them."""

    def __init__(self):
        self.ns, self.running, self.nodes, self.plan, self.arguments = 10**12, False, [], [], {}

    def install(self, monkeypatch):
        """Put it where `import rclpy` and the messages' packages are looked for."""
        utilities, signals, qos = ModuleType("rclpy.utilities"), ModuleType("rclpy.signals"), ModuleType("rclpy.qos")
        utilities.remove_ros_args = lambda args: args[: args.index("--ros-args")] if "--ros-args" in args else args
        signals.SignalHandlerOptions = SimpleNamespace(NO="none", ALL="all")
        qos.ReliabilityPolicy = SimpleNamespace(BEST_EFFORT=BEST_EFFORT, RELIABLE=RELIABLE)
        qos.QoSProfile = lambda depth, reliability: SimpleNamespace(depth=depth, reliability=reliability)
        whole = ModuleType("rclpy")
        for name in ("init", "shutdown", "ok", "create_node", "spin_once"):
            setattr(whole, name, getattr(self, name))
        whole.utilities, whole.signals, whole.qos = utilities, signals, qos
        for module in (whole, utilities, signals, qos):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        for name, kinds in PACKAGES.items():
            package, module = ModuleType(name.partition(".")[0]), ModuleType(name)
            for kind in kinds:
                setattr(module, kind.__name__, kind)
            monkeypatch.setitem(sys.modules, package.__name__, package)
            monkeypatch.setitem(sys.modules, name, module)

    def init(self, *, args=None, signal_handler_options="all"):
        assert not self.running
        assert signal_handler_options == "none"  # the real default ends the context at SIGINT
        self.running = True
        words = list(args or [])
        pairs = [words[i + 1].split(":=") for i, word in enumerate(words) if word == "-p"]
        self.arguments = {name: _typed(value) for name, value in pairs}

    def shutdown(self):
        assert self.running
        self.running = False

    def ok(self):
        return self.running

    def create_node(self, name):
        assert self.running
        self.nodes.append(Node(self, name))
        return self.nodes[-1]

    def spin_once(self, node, timeout_sec):
        """Run one callback that is ready; wait for it until the timeout."""
        assert self.running
        if node.run_one():
            return
        end = self.ns + round(1e9 * timeout_sec)
        while not node.ready() and self.ns < end:
            moments = [end, *(t.next for t in node.timers), *(at for at, _ in self.plan)]
            self.spend(max(0, min(m for m in moments if m >= self.ns) - self.ns) * 1e-9)
            if not node.ready() and self.ns < end and min(moments) <= self.ns:
                continue
        node.run_one()

    def spend(self, seconds):
        """Time passes; what was planned for it happens."""
        self.ns += round(1e9 * seconds)
        due = [entry for entry in self.plan if entry[0] <= self.ns]
        self.plan = [entry for entry in self.plan if entry[0] > self.ns]
        for _, what in due:
            what()

    def at(self, seconds, what):
        """Call `what` so many seconds from now."""
        self.plan.append((self.ns + round(1e9 * seconds), what))

    def stamp(self, age=0.0):
        ns = self.ns - round(1e9 * age)
        return Stamp(sec=ns // 10**9, nanosec=ns % 10**9)


class Node:
    """A node, its callbacks in the order in which they were made ready."""

    def __init__(self, process, name):
        self.process, self.name = process, name
        self.timers, self.subscriptions, self.services, self.logs, self.alive = [], [], {}, [], True

    def resolve(self, topic):
        return (
            f"/{self.name}/{topic[2:]}" if topic.startswith("~/") else topic if topic.startswith("/") else f"/{topic}"
        )

    def create_subscription(self, kind, topic, callback, qos):
        self.subscriptions.append(
            SimpleNamespace(
                kind=kind, topic=self.resolve(topic), callback=callback, qos=qos, queue=deque(maxlen=qos.depth)
            )
        )

    def create_publisher(self, kind, topic, qos):
        return Publisher(self, kind, self.resolve(topic), qos)

    def create_service(self, kind, name, callback):
        self.services[self.resolve(name)] = (kind, callback)

    def call(self, name):
        kind, callback = self.services[name]
        return callback(kind.Request(), kind.Response())

    def create_timer(self, period, callback):
        self.timers.append(Timer(self.process, period, callback))
        return self.timers[-1]

    def get_clock(self):
        ns, process = self.process.ns, self.process
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=ns, to_msg=process.stamp))

    def get_logger(self):
        def log(text, throttle_duration_sec=0.0):
            self.logs.append(text)

        return SimpleNamespace(info=log, warning=log, error=log)

    def declare_parameter(self, name, default):
        value = self.process.arguments.get(name, default)
        assert type(value) is type(default), f"parameter {name} is a {type(value)}, not a {type(default)}"
        return SimpleNamespace(value=value)

    def destroy_node(self):
        self.alive = False
        self.process.nodes.remove(self)

    def ready(self):
        return any(t.next <= self.process.ns for t in self.timers) or any(s.queue for s in self.subscriptions)

    def run_one(self):
        for timer in self.timers:
            if timer.next <= self.process.ns:
                timer.fire()
                return True
        for subscription in self.subscriptions:
            if subscription.queue:
                subscription.callback(subscription.queue.popleft())
                return True
        return False


class Publisher:
    def __init__(self, node, kind, topic, qos):
        self.node, self.kind, self.topic, self.qos = node, kind, topic, qos

    def publish(self, message):
        assert type(message) is self.kind
        assert self.node.alive
        assert self.node.process.running
        for node in self.node.process.nodes:
            for subscription in node.subscriptions:
                heard = self.qos.reliability == RELIABLE or subscription.qos.reliability == BEST_EFFORT
                if (subscription.topic, subscription.kind) == (self.topic, self.kind) and heard:
                    subscription.queue.append(copy.deepcopy(message))


class Timer:
    """Calls on a grid; calls that were missed are left out."""

    def __init__(self, process, period, callback):
        self.process, self.period, self.callback = process, round(1e9 * period), callback
        self.next = process.ns + self.period

    def fire(self):
        self.next += self.period
        if self.next <= self.process.ns:
            self.next += ((self.process.ns - self.next) // self.period + 1) * self.period
        self.callback()


def _typed(text):
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
