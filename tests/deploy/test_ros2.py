"""The ROS 2 node, on a stand-in for rclpy (`ros2_standin.py`): what it reads, what it sends, and when it does not."""

import json
import math
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from noisepilot.deploy.export import export
from noisepilot.deploy.runtime import Gate, Limits, Policy, PolicyError
from noisepilot.deploy.runtime.ros2 import Driver, main
from noisepilot.deploy.runtime.ros2_topics import Source, Topics, read_picture
from noisepilot.experiments import cli

from . import ros2_standin as ros
from .test_runtime_alone import FOLDER
from .toys import make_policy

JOINTS = {"topic": "/joint_states", "type": "sensor_msgs/JointState", "names": ["a", "b"]}
ARRAY = {"topic": "/commands", "type": "std_msgs/Float64MultiArray"}
MAP = {"observations": {"state": JOINTS}, "action": ARRAY}
HZ = 10.0


@pytest.fixture
def rclpy(monkeypatch):
    process = ros.Rclpy()
    process.install(monkeypatch)
    process.running = True
    return process


def follower(cost=lambda: None, observations=None, n_obs_steps=1):
    """Goes where the newest joints are, in chunks of one."""

    def run(feeds):
        if feeds["noise"].any():  # not the warm-up
            cost()
        seen.append({name: value[0] for name, value in feeds.items()})
        return feeds["observation.state"][:, -1:, :2]

    seen = []
    facts = {"horizon": 1, "n_action_steps": 1, "n_obs_steps": n_obs_steps, "noise_shape": [1, 1, 2], "env": ""}
    observations = observations or {"state": {"shape": [n_obs_steps, 2], "names": ["a", "b"]}}
    action = {"shape": [1, 2], "names": ["a", "b"]}
    policy = Policy(run, {"schema": 1, "control_hz": HZ, **facts, "observations": observations, "action": action})
    policy.seen = seen
    return policy


class Robot:
    """The other node: publishes joints, hears commands."""

    def __init__(self, process):
        self.process, self.node, self.heard = process, process.create_node("robot"), []
        reliable = SimpleNamespace(depth=100, reliability=ros.RELIABLE)
        self.joints = self.node.create_publisher(ros.JointState, "/joint_states", reliable)
        self.node.create_subscription(ros.Float64MultiArray, "/commands", lambda m: self.heard.append(m.data), reliable)

    def say(self, position, names=("a", "b"), age=0.0):
        header = ros.Header(stamp=self.process.stamp(age))
        self.joints.publish(ros.JointState(header=header, name=list(names), position=list(position)))

    def commands(self):
        while self.node.run_one():
            pass
        heard, self.heard = self.heard, []
        return heard


class Play:
    """A driver in its node, and a robot."""

    def __init__(self, process, tmp_path, policy=None, gate=None, facts=MAP):
        (tmp_path / "topics.json").write_text(json.dumps(facts))
        self.process, self.robot = process, Robot(process)
        self.node = process.create_node("noisepilot")
        policy = policy or follower()
        self.gate = gate or Gate(Limits([-9.0, -9.0], [9.0, 9.0], names=["a", "b"]), HZ, stale_s=0.25)
        self.driver = Driver(self.node, policy, Topics(tmp_path / "topics.json", policy.spec, HZ), self.gate)

    def steps(self, count, position=None, **said):
        """So many control steps, the robot speaking a little before each; returns what was commanded."""
        for _ in range(count):
            tick = self.node.timers[0].next
            self.process.spend(max(0.0, (tick - self.process.ns) * 1e-9 - 0.01))
            if position is not None:
                self.robot.say(position, **said)
            while self.node.timers[0].next == tick:
                self.process.spin_once(self.node, timeout_sec=0.02)
        return self.robot.commands()


def test_joints_are_taken_by_name_whatever_their_order(rclpy, tmp_path):
    policy = follower(n_obs_steps=2)
    play = Play(rclpy, tmp_path, policy)
    assert play.steps(2) == []  # nobody has spoken
    assert play.node.logs[-1] == "waiting: nothing on /joint_states yet"
    assert play.steps(1, [1.0, 2.0]) == [[1.0, 2.0]]
    assert play.steps(1, [5.0, 4.0, 3.0], names=("c", "b", "a")) == [[3.0, 4.0]]
    assert policy.seen[-1]["observation.state"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert play.gate.counts == {}


def test_a_missing_joint_counts_as_silence(rclpy, tmp_path):
    play = Play(rclpy, tmp_path)
    assert play.steps(1, [1.0], names=("a",)) == []
    assert play.node.logs[-1] == "waiting: /joint_states: no position of joint 'b'"
    assert play.steps(1, [1.0, 2.0]) == [[1.0, 2.0]]
    assert play.steps(5, [7.0], names=("a",)) == [[1.0, 2.0]] * 5
    assert play.gate.counts == {"stale": 3}


def test_a_silent_topic_makes_the_robot_stand_and_goes_on_when_it_speaks_again(rclpy, tmp_path):
    gate = Gate(Limits([-9.0] * 2, [9.0] * 2, velocity=5.0), HZ, stale_s=0.25)
    play = Play(rclpy, tmp_path, gate=gate)
    gate_before = play.steps(1, [0.0, 0.0])
    moving = play.steps(2, [3.0, 0.0])
    silent = play.steps(5)
    assert gate_before + moving == [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]
    assert silent == [[1.5, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]  # until it is too old
    assert gate.counts["stale"] == 3
    assert any(log == "gate: stale" for log in play.node.logs)
    assert play.steps(1, [3.0, 0.0]) == [[2.5, 0.0]]


def test_age_is_that_of_the_stamp(rclpy, tmp_path):
    play = Play(rclpy, tmp_path)
    play.steps(1, [0.0, 0.0])
    play.steps(1, [1.0, 0.0], age=0.3)  # comes now, was true long ago
    assert play.gate.counts == {"stale": 1}
    play.steps(1, [1.0, 0.0], age=-5.0)  # a clock that is ahead hides nothing
    assert play.gate.counts == {"stale": 1}
    play.steps(3)
    assert play.gate.counts == {"stale": 2}
    source = Source(JOINTS, "state")
    header = ros.Header(stamp=ros.Stamp(sec=99, nanosec=500_000_000))
    source.take(ros.JointState(header=header, name=["b", "a"], position=[1.0, 2.0]), 100.0)
    assert (source.value.tolist(), source.age(101.0)) == ([2.0, 1.0], 1.5)
    assert source.age(99.0) == math.inf  # set back
    source.take(ros.JointState(name=["b", "a"], position=[1.0, 2.0]), 100.0)
    assert source.age(101.0) == 1.0  # without a stamp


def test_what_is_not_finite_is_not_followed(rclpy, tmp_path):
    play = Play(rclpy, tmp_path)
    play.steps(1, [1.0, 2.0])
    assert play.steps(2, [math.nan, 2.0]) == [[1.0, 2.0]] * 2
    assert play.gate.counts == {"invalid": 2}
    assert play.steps(1, [2.0, 2.0]) == [[2.0, 2.0]]
    first = Play(rclpy, tmp_path)
    assert first.steps(1, [math.nan, 2.0]) == []  # nothing safe is known to send
    assert "the first action is refused" in first.node.logs[-1]
    assert first.steps(1, [1.0, 2.0]) == [[1.0, 2.0]]


def test_stop_latches_and_reset_waits_until_it_stands(rclpy, tmp_path):
    gate = Gate(Limits([-9.0] * 2, [9.0] * 2, velocity=5.0, acceleration=10.0), HZ, stale_s=1.0)
    play = Play(rclpy, tmp_path, gate=gate)
    play.steps(1, [0.0, 0.0])
    play.steps(6, [8.0, 0.0])
    assert play.node.call("/noisepilot/stop").success
    assert play.node.call("/noisepilot/reset").success is False  # it is still moving
    braking = [command[0] for command in play.steps(8, [8.0, 0.0])]
    assert np.diff(braking)[0] > 0
    assert braking[-2] == braking[-1] < 8
    assert np.abs(np.diff(np.diff(braking))).max() <= 0.1 + 1e-9
    assert gate.latched == "stop"
    answer = play.node.call("/noisepilot/reset")
    assert (answer.success, gate.latched) == (True, None)
    # Not a jump to where the policy wants to be: it sets out from where it stands.
    assert play.steps(1, [8.0, 0.0])[0][0] == pytest.approx(braking[-1] + 0.1)
    play.node.subscriptions[-1].callback(ros.Bool(data=False))
    assert gate.latched is None
    stop = play.robot.node.create_publisher(
        ros.Bool, "/noisepilot/stop", SimpleNamespace(depth=1, reliability=ros.RELIABLE)
    )
    stop.publish(ros.Bool(data=True))
    play.steps(1, [8.0, 0.0])
    assert gate.latched == "stop"


def test_the_first_command_sets_out_from_where_the_robot_is(rclpy, tmp_path):
    gate = Gate(Limits([-9.0] * 2, [9.0] * 2, velocity=5.0), HZ)
    facts = {**MAP, "start": {**JOINTS, "topic": "/at"}}
    play = Play(rclpy, tmp_path, gate=gate, facts=facts)
    assert play.steps(1, [5.0, 5.0]) == []
    assert play.node.logs[-1] == "waiting: nothing on /at yet"
    at = play.robot.node.create_publisher(ros.JointState, "/at", SimpleNamespace(depth=1, reliability=ros.RELIABLE))
    at.publish(ros.JointState(name=["b", "a"], position=[1.0, 2.0]))
    assert play.steps(2, [5.0, 5.0]) == [[2.5, 1.5], [3.0, 2.0]]


def test_a_policy_that_fails_is_no_reason_to_fall_silent(rclpy, tmp_path):
    def fail():
        if len(policy.seen) == 23:  # 20 of them to warm up
            raise RuntimeError("out of memory")

    policy = follower(fail)
    play = Play(rclpy, tmp_path, policy)
    assert play.steps(5, [1.0, 2.0]) == [[1.0, 2.0]] * 5
    assert play.gate.counts == {"invalid": 2}
    assert "out of memory" in play.node.logs


def test_a_slow_policy_is_late_once_and_catches_no_burst(rclpy, tmp_path):
    costs = iter([0.0, 0.25, 0.0, 0.0, 0.0])
    gate = Gate(Limits([-9.0] * 2, [9.0] * 2), HZ, late_s=0.02)
    play = Play(rclpy, tmp_path, follower(lambda: rclpy.spend(next(costs))), gate)
    assert len(play.steps(5, [1.0, 1.0])) == 5
    assert gate.counts == {"late": 1}


# Messages


ORDERS = {"rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "mono8": (1, [0]), "bgra8": (4, [2, 1, 0])}


@pytest.mark.parametrize("encoding", ORDERS)
def test_pictures_with_padded_rows(encoding):
    size, order = ORDERS[encoding]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, size), np.uint8)
    rows = np.concatenate([pixels.reshape(4, -1), np.full((4, 3), 7, np.uint8)], 1)
    message = ros.Image(height=4, width=5, encoding=encoding, step=rows.shape[1], data=rows.tobytes())
    assert np.array_equal(read_picture(message), pixels[:, :, order])
    message.data = message.data[:-1]
    with pytest.raises(ValueError, match="bytes and rows of"):
        read_picture(message)
    message.encoding = "bayer_rggb8"
    with pytest.raises(ValueError, match="encoding 'bayer_rggb8', known are rgb8"):
        read_picture(message)


def test_several_sources_and_a_camera(rclpy, tmp_path):
    observations = {
        "state": {"shape": [1, 4], "names": []},
        "images.front": {"shape": [1, 2, 3, 3], "dtype": "uint8"},
    }
    facts = {
        "observations": {
            "state": [
                {"topic": "/pose", "type": "geometry_msgs/msg/PoseStamped", "elements": [2, 0]},
                {**JOINTS, "names": ["grip"], "field": "velocity"},
                {"topic": "/force", "type": "std_msgs/Float64MultiArray", "elements": [1]},
            ],
            "images.front": {"topic": "/camera", "type": "sensor_msgs/Image"},
        },
        "action": [{**ARRAY, "of": [1]}, {**ARRAY, "topic": "/other", "of": [0]}],
    }
    policy = follower(observations=observations)
    play = Play(rclpy, tmp_path, policy, facts=facts)
    sensor, sent = SimpleNamespace(depth=1, reliability=ros.BEST_EFFORT), {}
    pose = ros.PoseStamped()
    pose.pose.position.x, pose.pose.position.z = 1.0, 3.0
    picture = ros.Image(height=2, width=3, encoding="rgb8", step=9, data=bytes(range(18)))
    for topic, message in {
        "/pose": pose,
        "/joint_states": ros.JointState(name=["x", "grip"], position=[], velocity=[0.0, 0.5]),
        "/force": ros.Float64MultiArray(data=[8.0, 9.0]),
        "/camera": picture,
    }.items():
        sent[topic] = play.robot.node.create_publisher(type(message), topic, sensor)
        sent[topic].publish(message)
    heard = []
    play.robot.node.create_subscription(ros.Float64MultiArray, "/other", lambda m: heard.append(m.data), sensor)
    assert play.steps(1) == [[1.0]]
    assert heard == [[3.0]]
    assert policy.seen[-1]["observation.state"].tolist() == [[3.0, 1.0, 0.5, 9.0]]
    assert policy.seen[-1]["observation.images.front"].reshape(-1).tolist() == list(range(18))
    small = ros.Image(height=1, width=3, encoding="rgb8", step=9, data=bytes(9))
    sent["/camera"].publish(small)
    assert play.steps(1) == [[1.0]]
    assert play.gate.counts["invalid"] == 1
    assert any(
        "'images.front' has shape (1, 3, 3) on /camera, the policy sees (2, 3, 3)" in log for log in play.node.logs
    )


def test_commands_as_trajectory_and_twist(rclpy, tmp_path):
    heard = {}
    for kind, entry in (
        (ros.JointTrajectory, {"names": ["left", "right"]}),
        (ros.TwistStamped, {"elements": [0, 5], "frame": "tool"}),
    ):
        package = "trajectory_msgs" if kind is ros.JointTrajectory else "geometry_msgs"
        facts = {**MAP, "action": {"topic": "/out", "type": f"{package}/{kind.__name__}", **entry}}
        play = Play(rclpy, tmp_path, facts=facts)
        qos = SimpleNamespace(depth=1, reliability=ros.RELIABLE)
        play.robot.node.create_subscription(kind, "/out", lambda m, k=kind: heard.update({k: m}), qos)
        play.steps(1, [0.25, -0.5])
    path, twist = heard[ros.JointTrajectory], heard[ros.TwistStamped]
    (point,) = path.points
    assert (path.joint_names, point.positions) == (["left", "right"], [0.25, -0.5])
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 100_000_000)
    assert (path.header.stamp.sec, twist.header.frame_id) == (0, "tool")
    assert twist.header.stamp.sec == rclpy.ns // 10**9
    assert (twist.twist.linear.x, twist.twist.linear.y, twist.twist.angular.z) == (0.25, 0.0, -0.5)


def test_maps_that_do_not_fit(tmp_path):
    spec, path = follower().spec, tmp_path / "topics.json"
    odd = {**JOINTS, "type": "sensor_msgs/LaserScan"}
    twist = {"topic": "/x", "type": "geometry_msgs/TwistStamped", "elements": [0]}
    joints = {"topic": "/x", "type": "trajectory_msgs/JointTrajectory", "names": ["a"]}
    for facts, words in (
        ("{", "it is not JSON"),
        ({"observations": {}}, "does not say 'action'"),
        ({**MAP, "hz": 3}, "says 'hz', which is not known: known are observations, action, start"),
        ({**MAP, "observations": {}}, "observations does not say 'state'"),
        ({**MAP, "observations": {"state": JOINTS, "wind": JOINTS}}, "says 'wind'"),
        ({**MAP, "observations": {"state": odd}}, "observation 'state' has type 'sensor_msgs/LaserScan': known are"),
        ({**MAP, "observations": {"state": {**JOINTS, "field": "torque"}}}, "a `field` of"),
        ({**MAP, "observations": {"state": {**JOINTS, "qos": "fast"}}}, "has qos 'fast': known are sensor, reliable"),
        ({**MAP, "observations": {"state": ["/joints"]}}, "observation 'state' must be a JSON object"),
        ({**MAP, "action": {**ARRAY, "of": [2]}}, r"action `of` \[2\] must list elements of 2"),
        ({**MAP, "action": {"topic": "/x", "type": "std_msgs/String"}}, "action has type 'std_msgs/String'"),
        ({**MAP, "action": twist}, "must place 2 numbers"),
        ({**MAP, "action": joints}, "needs 2 `names`"),
    ):
        path.write_text(facts if isinstance(facts, str) else json.dumps(facts))
        with pytest.raises(PolicyError, match=words) as error:
            Topics(path, spec, HZ)
        assert "\n" not in str(error.value)
    with pytest.raises(PolicyError, match=r"cannot read .*none\.json: No such file"):
        Topics(tmp_path / "none.json", spec, HZ)


# The command line


@pytest.fixture
def files(tmp_path):
    export(make_policy("flow1"), tmp_path / "policy.npz", provenance={})
    (tmp_path / "gate.json").write_text('{"velocity": 0.5, "acceleration": 2.0, "stale_s": 0.5}')
    state = {**JOINTS, "names": ["x", "y", "vx", "vy"]}
    facts = {"observations": {"state": state, "goal": {"topic": "/goal", "type": "std_msgs/Float64MultiArray"}}}
    (tmp_path / "topics.json").write_text(json.dumps({**facts, "action": ARRAY}))
    return tmp_path


def test_the_command_line_plays_a_file_and_a_signal_stops_the_robot_first(rclpy, files, capfd):
    rclpy.running = False
    heard, qos = [], SimpleNamespace(depth=1000, reliability=ros.RELIABLE)

    def robot():
        node = rclpy.create_node("robot")
        node.create_subscription(ros.Float64MultiArray, "/commands", None, qos)
        joints = node.create_publisher(ros.JointState, "/joint_states", qos)
        goal = node.create_publisher(ros.Float64MultiArray, "/goal", qos)

        def speak():
            position = [0.1, 0.2, 0.0, 0.0]
            joints.publish(ros.JointState(name=["x", "y", "vx", "vy"], position=position))
            goal.publish(ros.Float64MultiArray(data=[0.5, 0.5]))
            heard.extend(message.data for message in node.subscriptions[0].queue)
            node.subscriptions[0].queue.clear()
            if rclpy.running:
                rclpy.at(0.04, speak)

        speak()

    rclpy.at(0.01, robot)
    rclpy.at(0.6, lambda: signal.raise_signal(signal.SIGINT))
    words = [str(files / "policy.npz"), "--topics", str(files / "topics.json"), "--gate", str(files / "gate.json")]
    before = signal.getsignal(signal.SIGINT)
    assert main([*words, "--ros-args", "-p", "hz:=25.0"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert (rclpy.running, [node.name for node in rclpy.nodes]) == (False, ["robot"])
    heard.extend(message.data for message in rclpy.nodes[0].subscriptions[0].queue)
    path = np.array(heard)
    speed = 25 * np.diff(path, axis=0)
    assert 10 < len(path) < 40
    assert np.abs(speed).max() > 0.1
    assert np.abs(speed).max() <= 0.5 + 1e-9
    assert np.abs(25 * np.diff(speed, axis=0)).max() <= 2 + 1e-6
    assert np.array_equal(path[-1], path[-2])  # it stands


def test_the_command_line_refuses(rclpy, files, capsys, monkeypatch):
    policy, topics = str(files / "policy.npz"), str(files / "topics.json")
    twist = json.loads((files / "topics.json").read_text())
    twist["action"] = {"topic": "/x", "type": "geometry_msgs/TwistStamped", "elements": [0, 1]}
    (files / "twist.json").write_text(json.dumps(twist))
    for words, message in (
        ([], "the policy is missing: give POLICY"),
        ([policy], "the topics is missing: give --topics FILE"),
        ([policy, "--topics", str(files / "none.json")], "cannot read"),
        ([str(files / "none.npz"), "--topics", topics], "cannot read"),
        ([policy, "--topics", topics, "--hz", "-1"], "the control rate is -1 Hz"),
        ([policy, "--topics", str(files / "twist.json")], "give a --gate with `safe`"),
        ([policy, "--topics", topics, "--overlay", policy], "is a policy of its own and no overlay"),
    ):
        rclpy.running = False
        assert cli.main(["ros2", *words]) == 2
        assert message in capsys.readouterr().err
        assert (rclpy.running, rclpy.nodes) == (False, [])
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert cli.main(["ros2", policy, "--topics", topics]) == 2
    assert capsys.readouterr().err == "error: rclpy is missing: source ROS 2's setup, and use the Python it is for\n"


def test_a_copy_of_the_folder_has_the_node(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "player", ignore=shutil.ignore_patterns("__pycache__"))
    for words, code, text in ((["--help"], 0, "--topics"), (["policy.onnx"], 2, "rclpy is missing")):
        command = [sys.executable, "-m", "player.ros2", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done.stderr
