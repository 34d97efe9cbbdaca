"""Conventions of actions: what contradicts them in the data, and who refuses whom."""

from dataclasses import replace

import numpy as np
import pytest

from noisepilot.config import from_dict, to_dict
from noisepilot.datasets.checks import check
from noisepilot.datasets.conform import conform
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.datasets.rotations import convert
from noisepilot.errors import UserError
from noisepilot.spec import ROTATIONS, ArraySpec, Convention, EnvSpec, PolicySpec


def arm(mode, said, gripper="closes", sign=-1.0):
    """A point that is sent about by position or by steps, with a gripper at the last element."""
    rng = np.random.default_rng(0)
    target = np.cumsum(rng.normal(size=(401, 3)), 0)
    position = np.concatenate([np.zeros((1, 3)), target[:-1]]) + 0.01 * rng.normal(size=(401, 3))
    move = (target if mode == "absolute" else np.diff(position, axis=0, append=position[-1:]))[:400]
    command = rng.choice([-1.0, 1.0], (400, 1))
    width = np.concatenate([[[0.0]], np.cumsum(sign * command, 0)])[:400]
    data = {
        "observation.eef_pos": position[:400],
        "observation.robot0_gripper_qpos": np.hstack([width + 500, -width - 500]),
        "action": np.hstack([move, command]),
    }
    spec = ArraySpec((4,), convention=Convention(mode=said, gripper=gripper, gripper_at=(3,)))
    return Episodes(data, np.array([200, 400]), {"fps": 10.0, "specs": to_dict({"action": spec})})


def said_of_actions(episodes, level):
    return [f.message for f in check(episodes) if f.key == "action" and f.level == level]


def test_actions_that_are_as_they_say_pass():
    for mode in ("absolute", "delta"):
        assert said_of_actions(arm(mode, mode), "warning") == []
    assert said_of_actions(arm("delta", ""), "info") == []


@pytest.mark.parametrize(("mode", "said"), [("absolute", "delta"), ("delta", "absolute")])
def test_delta_and_absolute_confused(mode, said):
    (message,) = said_of_actions(arm(mode, said), "warning")
    assert message.startswith(f"said to be {said} but looks {mode}")
    assert "observation.eef_pos" in message


def test_absolute_actions_that_do_not_say_so():
    (message,) = said_of_actions(arm("absolute", ""), "info")
    assert "looks absolute" in message


@pytest.mark.parametrize(("gripper", "sign"), [("closes", 1.0), ("opens", -1.0)])
def test_gripper_of_the_wrong_sign(gripper, sign):
    (message,) = said_of_actions(arm("delta", "delta", gripper, sign), "warning")
    assert message.startswith(f"element 3 is said to {gripper[:-1]} the gripper")
    assert said_of_actions(arm("delta", "delta", gripper, -sign), "warning") == []


@pytest.mark.parametrize("stored", ROTATIONS)
@pytest.mark.parametrize("said", ROTATIONS)
def test_rotations_of_another_kind(stored, said):
    turns = np.random.default_rng(0).normal(size=(400, 3))
    action = np.hstack([np.zeros((400, 3)), convert(turns, "axis_angle", stored), np.zeros((400, 1))])
    spec = ArraySpec(action.shape[1:], convention=Convention(rotation=said, rotation_at=(3,)))
    episodes = Episodes(
        {"action": action, "observation.x": turns}, np.array([400]), {"specs": to_dict({"action": spec})}
    )
    found = [message for message in said_of_actions(episodes, "warning") if f"are no {said}" in message]
    small = {"axis_angle", "euler_xyz"}  # angles: any small numbers may be some
    alike = stored == said or said in small or {stored, said} == {"quat_xyzw", "quat_wxyz"}
    assert bool(found) != (alike or (said == "6d" and stored == "matrix"))


def test_real_actions(shared_data):
    pusht = load(shared_data / "demos/pusht_v7_human_lowdim.npz")
    assert any("looks absolute (elements follow 'observation.state')" in m for m in said_of_actions(pusht, "info"))
    for name in ("adroit_door_human25.npz", "d4rl_style/hopper-medium-regen.hdf5"):
        assert not any("looks" in m for m in said_of_actions(load(shared_data / "demos" / name), "info"))
    for name in ("robosuite_v1.0_lift_panda_human1.hdf5", "robosuite_lift_panda_human3.hdf5"):
        assert not any("looks" in m for m in said_of_actions(load(shared_data / "demos" / name), "warning"))


def timed(times, fps=10.0):
    base = arm("delta", "delta")
    return Episodes({**base.data, "timestamp": times}, base.ends, {**base.attrs, "fps": fps})


def times_said(episodes):
    return [(f.level, f.key, f.message) for f in check(episodes) if f.key in ("fps", "timestamp")]


def test_times_and_rate():
    times = np.tile(np.arange(200) / 10, 2)
    assert times_said(timed(times)) == []
    assert times_said(timed(times, fps=30.0)) == [
        ("error", "fps", "30 is claimed, but frames lie 0.1 s apart, which is 10: correct the attribute, or resample")
    ]
    lost = times.copy()
    lost[250:] += 0.3
    ((level, key, message),) = times_said(timed(lost))
    assert (level, key) == ("warning", "timestamp")
    assert message.startswith("1 frames are lost or doubled (worst gap 4 periods), in 1 episodes, first 1")
    back = times.copy()
    back[300] = 0
    assert times_said(timed(back))[0][2].startswith("does not increase at 1 steps, first in episode 1")


def test_a_dimension_that_barely_changes():
    base = arm("delta", "delta")
    state = np.hstack([base.data["observation.eef_pos"], 7 + 1e-6 * np.random.default_rng(0).random((400, 1))])
    found = check(replace(base, data={**base.data, "observation.state": state}))
    assert [f.message[:24] for f in found if f.key == "observation.state"] == ["dimensions 3 change by l"]


DELTA = ArraySpec((4,), unit="m", convention=Convention(mode="delta", rotation="axis_angle"))
SIX = ArraySpec((4,), unit="mm", convention=Convention(mode="delta", rotation="6d"))


def test_who_disagrees_and_who_does_not():
    assert DELTA.disagreement(ArraySpec((4,))) == "" == ArraySpec((4,)).disagreement(DELTA)
    assert DELTA.disagreement(SIX) == "unit m != mm, rotation axis_angle != 6d"
    assert ArraySpec((4,)).filled(DELTA) == DELTA
    assert from_dict(to_dict(DELTA)) == DELTA
    with pytest.raises(UserError, match="unknown rotation 'axisangle': did you mean 'axis_angle'"):
        Convention(rotation="axisangle")


def env(action):
    return EnvSpec("Arm-v0", {"eef_pos": ArraySpec((3,))}, action, control_hz=10.0, max_steps=9)


def test_policy_data_and_environment_refuse_each_other():
    base = arm("delta", "delta")
    episodes = replace(base, attrs={**base.attrs, "specs": to_dict({"action": DELTA})})
    policy = PolicySpec({"eef_pos": ArraySpec((3,))}, SIX, 1, 1)
    message = "differ in actions: unit .* rotation .*; convert the data"
    with pytest.raises(UserError, match="policy and environment Arm-v0 " + message):
        policy.check_env(env(DELTA))
    with pytest.raises(UserError, match="policy and set " + message):
        policy.check_data(episodes.obs_specs(), episodes.action_spec(), "set")
    with pytest.raises(UserError, match="the dataset and environment Arm-v0 " + message):
        conform(episodes, env(SIX))
    assert any("means something else than in Arm-v0: unit m != mm" in f.message for f in check(episodes, env(SIX)))
    policy.check_env(env(SIX))
    fitted, _ = conform(episodes, env(ArraySpec((4,), low=(-1.0,) * 4, high=(1.0,) * 4)))
    assert fitted.action_spec().convention == DELTA.convention
