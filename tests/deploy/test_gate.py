"""Whatever is fed to the gate, what leaves it keeps every bound; what keeps them by itself leaves unchanged."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

# The folder by itself, as a robot has it: the type checks of this session's imports would take most of the time, and
# would refuse the garbage that the gate must refuse.
FOLDER = str(Path(__file__).parents[2] / "deploy" / "runtime")
found = importlib.util.spec_from_file_location("robot", FOLDER + "/__init__.py", submodule_search_locations=[FOLDER])
runtime = sys.modules["robot"] = importlib.util.module_from_spec(found)
found.loader.exec_module(runtime)
Gate, Limits, PolicyError, Seen, Spec = runtime.Gate, runtime.Limits, runtime.PolicyError, runtime.Seen, runtime.Spec
Workspace, Axis, INF = runtime.Workspace, sys.modules["robot.motion"].Axis, math.inf
RATES = st.sampled_from([1.0, 10.0, 50.0, 333.0, 1000.0])
ULPS = 8192
"""of the largest command, by which its differences may exceed a bound: positions are rounded at every step"""


def bounds(smallest, largest):
    exponent = st.floats(math.log10(smallest), math.log10(largest))
    return st.one_of(st.none(), exponent.map(lambda e: 10.0**e))


@st.composite
def limits(draw, dim):
    low, high = [], []
    for _ in range(dim):
        center, width = draw(st.floats(-100, 100)), draw(st.sampled_from([0.0, 1e-3, 0.5, 7.0, 300.0]))
        low.append(draw(st.sampled_from([center - width / 2, center - width / 2, None])))
        high.append(draw(st.sampled_from([center + width / 2, center + width / 2, None])))
    rates = [draw(bounds(0.01, 100)), draw(bounds(0.01, 1000)), draw(bounds(0.1, 10000))]
    return Limits(low, high, *rates)


NOT_TWO_NUMBERS = [
    *(None, "left", b"xy", 3.5, object(), {"a": 1}, [], [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], np.zeros((2, 1))),
    *(["a", "b"], ["1", "2"], [None, 1.0], [True, False], [1j, 0], [[1.0], [2.0, 3.0]]),
    *([math.nan, 0.0], [0.0, math.inf], [1e300, 0.0], [10**400, 0]),
]
GARBAGE = st.sampled_from([*NOT_TWO_NUMBERS, np.array([1e25, -1e25], np.float32)])


@st.composite
def wishes(draw):
    """(action or garbage, age of the observation): jumps, walks, waves and garbage, each for a while."""
    sequence, at = [], np.zeros(2)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 6))):
        kind, steps = draw(st.sampled_from(["jump", "stay", "walk", "wave", "noise"])), draw(st.integers(1, 60))
        size = 10.0 ** rng.uniform(-3, 2.5)
        if draw(st.integers(0, 3)) == 0:
            sequence += [(draw(GARBAGE), 0.0)] * draw(st.integers(1, 5))
        for i in range(steps):
            if kind == "jump" or (kind == "stay" and i == 0):
                at = size * rng.uniform(-1, 1, 2)
            elif kind in ("walk", "noise"):
                at = at + (0.05 if kind == "walk" else 1) * size * rng.normal(size=2)
            elif kind == "wave":
                at = size * np.sin(0.1 * i + np.array([0, 1]))
            sequence.append((at.copy(), float(rng.random() < 0.03)))
    return sequence


def excess(commands, hz, rows):
    """By how many roundings of the largest command any difference exceeds its bound."""
    worst, scale = 0.0, np.abs(commands).max() + 1e-200
    low, high, *rates = np.array(rows).T
    assert ((commands >= low) & (commands <= high)).all()
    change = commands
    for order, bound in enumerate(rates, 1):
        # Before the first command the robot rests there.
        change = np.diff(change, axis=0, prepend=change[:1] if order == 1 else np.zeros_like(change[:1])) * hz
        over = np.abs(change) - bound * (1 + 1e-12)
        worst = max(worst, float(over.max()) / (2**-52 * scale * hz**order))
    return worst


@settings(max_examples=100, deadline=None)
@given(limits(2), RATES, wishes(), st.sampled_from(["hold", "ramp", "stop", lambda trip, last: [1e6, -1e6]]))
def test_no_bound_is_ever_broken(limits, hz, wishes, reaction):
    gate = Gate(limits, hz, stale_s=0.5, reactions={"invalid": reaction, "stale": reaction})
    gate.start([min(max(0.0, low), high) for low, high, *_ in limits.rows()])
    commands = np.array([a.x for a in gate.axes])[None]
    for i, (action, age) in enumerate(wishes):
        if i % 50 == 49:
            gate.reset()
        commands = np.concatenate([commands, gate.step(action, obs_age_s=age).action[None]])
    assert excess(commands, hz, limits.rows()) < ULPS


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-20, 20), st.floats(-1, 1), bounds(0.05, 50), st.floats(-0.5, 2).map(lambda e: 10.0**e),
    st.sampled_from([1.0, 20.0, 200.0]),
)  # fmt: skip
@example(0.0, 1.0, 2.0, 1.0, 10.0)
@example(0.3, 0.0, None, 5.0, 20.0)
def test_the_stop_that_is_foreseen_is_the_stop_that_comes(v, share, acceleration, jerk, hz):
    axis = Axis(1 / hz, acceleration=acceleration or INF, jerk=jerk)
    a = share * (acceleration or 10.0)
    foreseen = axis.rest(v, a)
    x, xs, reach = 0.0, [0.0], 1.0
    for _ in range(3000):
        a = axis._braking(v, a)
        v += a / hz
        x += v / hz
        xs.append(x)
        if abs(v) < 1e-12 and abs(a) < 1e-11:
            break
    else:
        return  # a stop that takes too long to walk through
    reach += max(map(abs, xs))
    assert foreseen == pytest.approx((min(xs), max(xs), x), abs=1e-8 * reach)


ORDERS = [(1.0, None, None), (1.0, 4.0, None), (1.0, 4.0, 40.0), (None, None, 40.0), (None, 4.0, None)]


def play(gate, actions, **facts):
    return np.array([gate.step(action, **facts).action for action in actions])


@pytest.mark.parametrize("rates", ORDERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_sequence_within_the_bounds_passes_bit_for_bit(rates, dtype):
    t = np.clip(np.abs(np.arange(400) - 200) / 150 - 0.1, 0, 1)[:, None]  # towards 0, a rest, and back
    smooth = 1 - t**3 * (10 - 15 * t + 6 * t * t)
    actions = (np.array([1.0, -0.5, 0.7]) * smooth).astype(dtype)  # 1.0 is the limit itself
    gate = Gate(Limits([-1.0] * 3, [1.0] * 3, *rates), 50)
    assert play(gate, actions).astype(dtype).tobytes() == actions.tobytes()
    assert gate.report() == {"steps": 400, "events": {}, "latched": None}


@pytest.mark.parametrize("rates", ORDERS)
def test_what_one_gate_has_bounded_another_passes(rates):
    rng = np.random.default_rng(0)
    first, second = (Gate(Limits([-1.0], [1.0], *rates), 50) for _ in range(2))
    bounded = play(first, np.repeat(rng.uniform(-1.2, 1.2, 12), 25)[:, None])
    np.testing.assert_allclose(play(second, bounded), bounded, rtol=0, atol=1e-12)
    assert first.counts


def test_exactly_at_the_bounds():
    """At top speed into the wall: the braking that the bounds demand, and not a step earlier."""
    gate = Gate(Limits([0.0], [1.0], 1.0, 5.0), 10)  # 0.1 per step, velocity changes by 0.5 per step
    commands = play(gate, [[0.0]] + [[5.0]] * 15)[:, 0]
    np.testing.assert_allclose(commands[:13], [0, 0.05, *(0.15 + 0.1 * np.arange(8)), 0.925, 0.9625, 1.0], atol=0.08)
    assert (np.diff(commands) * 10).max() == pytest.approx(1.0)
    assert (commands[-3:] == 1.0).all()
    assert np.abs(np.diff(commands, 2) * 100).max() == pytest.approx(5.0)


@pytest.mark.parametrize("rates", ORDERS)
def test_a_jump_is_approached_without_overshoot_and_reached_exactly(rates):
    gate = Gate(Limits([-9.0], [9.0], *rates), 50)
    commands = play(gate, [[0.0]] * 5 + [[0.5]] * 120)[:, 0]
    assert (commands[-20:] == 0.5).all()
    assert commands.max() < 0.5 + 1e-12


@pytest.mark.parametrize("rates", ORDERS)
def test_a_moving_target_is_caught(rates):
    target = 0.3 * np.sin(2 * np.arange(400) / 50)
    target[100:] += 0.3
    gate = Gate(Limits([-9.0], [9.0], *rates), 50)
    assert (play(gate, target[:, None])[200:, 0] == target[200:]).all()


def test_events_name_the_bound():
    gate = Gate(Limits([-1.0], [1.0], 1.0, 5.0, 100.0), 10)
    gate.step([0.0])
    assert gate.step([9.0]).events == ("position",)
    for wish, bound, event in (
        ([0.5], {"velocity": 1.0}, "velocity"),
        ([0.09], {"acceleration": 5.0}, "acceleration"),
        ([0.02], {"jerk": 10.0}, "jerk"),
    ):
        gate = Gate(Limits([-1.0], [1.0], **bound), 10)
        gate.step([0.0])
        gated = gate.step(wish)
        assert gated.events == (event,)
        assert 0 < gated.action[0] < wish[0]
    gate = Gate(Limits([-1.0], [0.2], acceleration=5.0), 10)
    play(gate, [[0.0], [0.05], [0.1], [0.15]])
    assert gate.step([0.2]).events == ()  # at 0.5 per second one step stops it
    gate.start()
    play(gate, [[0.0], [0.05], [0.14]])
    assert gate.step([0.2]).events == ("lookahead",)  # at 0.6 it does not


# The trips


def moving(**options):
    """A gate in the middle of a motion at 0.5 per second, 10 Hz, and its newest command."""
    gate = Gate(Limits([-9.0, -9.0], [9.0, 9.0], 1.0, 2.0), 10, **options)
    commands = play(gate, np.outer([0, 0.02, 0.06, 0.11, 0.16, 0.21, 0.26], [1, -1]))
    assert not gate.counts
    return gate, commands[-1]


@pytest.mark.parametrize("action", NOT_TWO_NUMBERS, ids=repr)
def test_an_invalid_action_is_not_sent_and_the_newest_is_held(action):
    gate, last = moving()
    for _ in range(12):
        gated = gate.step(action)
        assert gated.events == ("invalid",)
    np.testing.assert_array_equal(gated.action, last)  # it could not stop at once, and came back
    assert gate.report()["events"] == {"invalid": 12}


def test_without_a_bound_on_acceleration_hold_is_at_once():
    gate = Gate(Limits([-1.0], [1.0], 5.0), 10)
    play(gate, [[0.0], [0.3]])
    assert gate.step([math.inf]).action == [0.3]


@pytest.mark.parametrize(
    ("name", "facts"), [("stale", {"obs_age_s": 0.11}), ("late", {"late_s": 0.03}), ("starved", {"starved_s": 1.1})]
)
def test_watchdogs_ramp_to_a_stop_and_let_go(name, facts):
    gate, last = moving(stale_s=0.1, late_s=0.02)
    assert gate.step(last, obs_age_s=0.1, late_s=0.02).events != (name,)
    gate, last = moving(stale_s=0.1, late_s=0.02)
    commands = play(gate, [[5.0, 5.0]] * 6, **facts)
    assert gate.report()["events"] == {name: 6}
    np.testing.assert_allclose(np.diff(commands, axis=0, prepend=last[None])[:, 0] * 10, [0.3, 0.1, 0, 0, 0, 0])
    assert gate.step([5.0, 5.0]).action[0] > commands[-1, 0]
    for bad in (math.nan, None, "old"):
        assert name in gate.step(last, **dict.fromkeys(facts, bad)).events


def test_ramp_to_a_safe_action():
    gate, _ = moving(stale_s=0.1, safe=[1.0, 1.0])
    commands = play(gate, [[5.0, 5.0]] * 60, obs_age_s=1.0)
    np.testing.assert_array_equal(commands[-1], [1.0, 1.0])
    assert np.abs(np.diff(commands, 2, axis=0) * 100).max() < 2 + 1e-9


def test_a_callback_says_where_to_go_and_may_fail():
    asked = []

    def flee(trip, last):
        asked.append((trip, last.tolist()))
        return last * 0 - 1.0

    gate, last = moving(stale_s=0.1, reactions={"stale": flee})
    commands = play(gate, [[5.0, 5.0]] * 60, obs_age_s=1.0)
    assert asked[0] == ("stale", last.tolist())
    np.testing.assert_array_equal(commands[-1], [-1.0, -1.0])
    for broken in (lambda trip, last: None, lambda trip, last: 1 / 0, lambda trip, last: [math.nan, 0]):
        gate, last = moving(stale_s=0.1, reactions={"stale": broken})
        commands = play(gate, [[5.0, 5.0]] * 4, obs_age_s=1.0)
        np.testing.assert_allclose(commands[-1] - last, [0.04, -0.04])


def test_the_strictest_reaction_wins():
    gate, last = moving(stale_s=0.1, late_s=0.1, reactions={"stale": "hold", "late": "stop"})
    gated = gate.step(last, obs_age_s=1.0, late_s=1.0)
    assert gated.events == ("stale", "late", "latched")
    assert gate.latched == "late"


def test_a_latched_stop_stays_until_reset():
    gate, _ = moving(stale_s=0.1, reactions={"stale": "stop"})
    gate.step([0.3, -0.3], obs_age_s=0.2)
    commands = play(gate, [[5.0, 5.0]] * 100)
    assert (commands[10:] == commands[10]).all()
    gate.start([0.0, 0.0])  # a new episode does not release it
    assert gate.step([0.01, 0.01]).events == ("latched",)
    assert gate.report() == {"steps": 109, "events": {"latched": 102, "stale": 1}, "latched": "stale"}
    gate.reset()
    gated = gate.step([0.01, 0.01])
    assert gated.events == ()
    assert gated.action.tolist() == [0.01, 0.01]


def test_stop_from_outside():
    gate, _ = moving()
    gate.stop("button")
    assert gate.step([0.3, -0.3]).events == ("latched",)
    assert gate.latched == "button"


def test_observations_outside_of_training():
    seen = Seen({"state": ([0.0, -1.0], [1.0, 1.0]), "goal": ([0.5], [0.5])}, margin=0.1, steps=3)
    inside = {"state": [[7.0, 7.0], [1.05, -1.15]], "goal": [0.5000001], "more": 3}
    assert not seen.outside(inside)  # of a history the newest counts
    odd = {**inside, "goal": [0.51]}
    for obs in (odd, {**inside, "state": [1.11, 0.0]}, {**inside, "state": [0.5, math.nan]}, {"state": [0, 0]}, {}, 3,
                {**inside, "state": "far"}, {**inside, "state": [1.0, 2.0, 3.0]}, {**inside, "goal": []}):  # fmt: skip
        assert seen.outside(obs)
    gate = Gate(Limits([-1.0], [1.0]), 10, seen=seen)
    events = [gate.step([0.0], obs).events for obs in (odd, odd, inside, odd, odd, None, odd, odd, inside)]
    assert [bool(e) for e in events] == [False] * 6 + [True] * 2 + [False]
    assert events[7] == ("ood",)


def spec(**action):
    facts = {"shape": (8, 2), "names": ["x", "grip"], "low": [-1.0, None], "high": [1.0, None], **action}
    obs = {"state": {"shape": (1, 1), "seen_low": [0.0], "seen_high": [1.0]}}
    return Spec(obs, facts, (1, 8, 2), 50.0, 8, 4, 1)


def test_quantiles_are_preferred_to_the_range():
    facts = spec()
    assert not Seen.from_spec(facts, margin=0.0).outside({"state": [0.9]})
    facts.observations["state"].update(q01=[0.0], q99=[0.5])
    assert Seen.from_spec(facts, margin=0.0).outside({"state": [0.9]})
    facts.observations["state"].clear()
    with pytest.raises(PolicyError, match="does not say which 'state' training has seen"):
        Seen.from_spec(facts)
    with pytest.raises(PolicyError, match=r"ood needs margin >= 0 and steps >= 1, got 0.5 and 0"):
        Seen({}, steps=0)


def arm(action):
    """The hand of an arm of two links."""
    q = np.array([action[0], action[0] + action[1]])
    return [np.cos(q).sum(), np.sin(q).sum()]


@settings(max_examples=20, deadline=None)
@given(wishes(), st.sampled_from([(2.0, None, None), (2.0, 8.0, None), (2.0, 8.0, 80.0)]))
def test_no_command_leaves_the_workspace(wishes, rates):
    workspace = Workspace(arm, (0.5, -0.6), (1.9, 0.6))
    gate = Gate(Limits([-3.0] * 2, [3.0] * 2, *rates), 20, workspace=workspace)
    gate.start([-0.7, 1.4])
    commands = np.array([[-0.7, 1.4], *play(gate, [action for action, _ in wishes])])
    assert all(workspace.contains(command) for command in commands)
    assert excess(commands, 20, Limits([-3.0] * 2, [3.0] * 2, *rates).rows()) < ULPS


def test_workspace_refuses_and_brakes():
    gate = Gate(Limits([-3.0] * 2, [3.0] * 2, 2.0, 8.0), 20, workspace=Workspace(arm, (0.5, -0.6), (1.9, 0.6)))
    with pytest.raises(PolicyError, match="first action is refused"):
        gate.step([3.0, 0.0])
    with pytest.raises(PolicyError, match="position lies outside of the workspace"):
        gate.start([3.0, 0.0])
    gate.start([-0.7, 1.4])
    commands = play(gate, [[-0.7, 3.0]] * 40)
    assert gate.counts["workspace"] > 0
    assert commands[-1, 1] > 1.5
    for broken in (lambda a: 1 / 0, lambda a: [math.nan, 0], lambda a: [1.0], lambda a: "here"):
        assert not Workspace(broken, (0, 0), (2, 2)).contains([0, 0])


def test_box_of_named_elements():
    gate = Gate(Limits.from_spec(spec(), box={"x": (0.2, 5.0)}), 50)
    assert gate.step([-1.0, 70.0]).action.tolist() == [0.2, 70.0]
    assert gate.step([3.0, 70.0]).action.tolist() == [1.0, 70.0]


def test_the_first_action():
    gate = Gate(Limits([-1.0], [1.0], 1.0), 10)
    with pytest.raises(
        PolicyError, match=r"first action is refused \(invalid\) .* `safe` action, or call start\(position\)"
    ):
        gate.step([math.nan])
    assert gate.step([0.9]).action == [0.9]
    gate.start([0.0])
    assert gate.step([0.9]).action == [0.1]
    gate = Gate(Limits([-1.0], [1.0], 1.0), 10, safe=[0.5])
    assert gate.step([math.nan]).action == [0.5]
    with pytest.raises(PolicyError, match="position must be 1 numbers within the limits, got 3"):
        gate.start(3)


def test_bounds_that_cannot_be():
    for settings_, message in (
        ({"low": [0.0], "high": [-1.0]}, "no '0' is within the limits: low 0 is above high -1"),
        ({"low": [0.0], "high": [1.0, 2.0]}, r"high has 2 numbers for 1 elements \['0'\]"),
        ({"low": 0.0}, "limits need the number of elements"),
        ({"low": [0.0], "velocity": 0.0}, "velocity of '0' must be positive, got 0"),
        ({"low": [0.0], "jerk": -1}, "jerk of '0' must be positive"),
        ({"low": [math.nan]}, "low of '0' must be a number, got nan"),
        ({"low": ["a"]}, "low of '0' must be a number, got 'a'"),
        ({"names": ["x"], "box": {"y": (0, 1)}}, r"box names 'y', but the action's elements are \['x'\]"),
        ({"names": ["x"], "box": {"x": 3}}, r"box 'x' must be a pair \(low, high\), got 3"),
        ({"names": ["x"], "velocity": {"z": 1}}, "velocity names 'z'"),
    ):
        with pytest.raises(PolicyError, match=message):
            Gate(Limits(**settings_), 10)
    good = Limits([0.0], [1.0])
    for options, message in (
        ({"hz": 0}, "hz must be a positive number, got 0"),
        ({"stale_s": "soon"}, "stale_s must be a positive number, got 'soon'"),
        ({"safe": [2.0]}, r"safe must be 1 numbers within the limits, got \[2.0\]"),
        ({"reactions": {"rain": "hold"}}, "there is no trip 'rain' .* trips are invalid, stale, late, starved, ood"),
        ({"reactions": {"late": "panic"}}, "no reaction 'panic' to 'late': reactions are hold, ramp, stop"),
    ):
        with pytest.raises(PolicyError, match=message):
            Gate(good, **{"hz": 10, **options})


def test_a_gate_from_a_file(tmp_path):
    path = tmp_path / "gate.json"
    facts = {"velocity": {"x": 0.5}, "acceleration": [5.0, None], "box": {"x": [-0.5, 2]}, "stale_s": 0.1}
    path.write_text(json.dumps({**facts, "ood": {"steps": 2}, "reactions": {"ood": "stop"}, "safe": [0.0, 0.0]}))
    gate = Gate.load(path, spec(), 50.0)
    x, grip = ((axis.low, axis.high, axis.velocity, axis.acceleration) for axis in gate.axes)
    assert (x, grip) == ((-0.5, 1, 0.5, 5), (-INF, INF, INF, INF))
    assert gate.seen.steps == 2
    for text, message in (
        ('{"speed": 1}', "gate.json has an unknown key 'speed': known are velocity, acceleration"),
        ('{"ood": {"sigma": 1}}', "gate.json has an unknown key 'sigma': known are margin, steps"),
        ('{"ood": 3}', "ood must hold a JSON object"),
        ("[1]", "gate.json must hold a JSON object"),
        ("{", "cannot read .*gate.json: it is not JSON"),
        ('{"velocity": "fast"}', "velocity must be a number, got 'fast'"),
        ('{"box": 3}', "box must map names to pairs, got 3"),
        ('{"reactions": 3}', "reactions must map trips to reactions, got 3"),
    ):
        path.write_text(text)
        with pytest.raises(PolicyError, match=message) as error:
            Gate.load(path, spec(), 50.0)
        assert "\n" not in str(error.value)
    with pytest.raises(PolicyError, match=r"cannot read .*: No such file"):
        Gate.load(tmp_path / "none.json", spec(), 50.0)
