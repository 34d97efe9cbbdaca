"""A controller that is faster than the policy."""

import numpy as np
import pytest

from noisepilot.deploy.runtime import Gate, Limits, PolicyError, run_loop
from noisepilot.deploy.runtime.upsample import ROTATION_SIZES, between, positions, ratio
from noisepilot.spec import ROTATIONS

from .clocked import Ticker, Ticks


def test_which_elements_are_positions():
    def found(**said):
        return positions({"shape": (4, 8), "convention": said}).tolist()

    assert found() == found(mode="delta") == [False] * 8
    assert found(mode="absolute", frame="joints") == [True] * 8
    arm = {"mode": "absolute", "rotation": "axis_angle", "gripper": "opens"}
    assert found(**arm, rotation_at=[3], gripper_at=[6]) == [True] * 3 + [False] * 4 + [True]
    assert found(**arm) == [False] * 8  # somewhere among them is a rotation
    assert not positions({"shape": (4, 8)}).any()
    assert ROTATION_SIZES == ROTATIONS


def test_straight_lines_and_steps():
    commands = between(np.array([0.0, 5.0]), np.array([1.0, 9.0]), 4, np.array([True, False]))
    assert np.array(commands).tolist() == [[0, 5], [0.25, 5], [0.5, 5], [0.75, 5]]
    assert np.array(between(np.zeros(1), None, 3, np.array([True]))).tolist() == [[0], [0], [0]]


def test_rates():
    assert ratio(20.0, 500.0) == 25
    for wrong in (30.0, 10.0, 50.1):
        with pytest.raises(PolicyError, match="is no multiple of the policy's 20 Hz"):
            ratio(20.0, wrong)


def test_the_loop_joins_actions_at_the_controllers_rate():
    policy, env = Ticker(8, 2), Ticks(1, 24)
    policy.spec.action["convention"] = {"mode": "absolute"}
    step = env.step

    def slowly(action):
        done = step(action)
        done.obs["state"][:] = done.obs["state"] // 4
        return done

    env.step = slowly
    gate = Gate(Limits([-9.0], [9.0]), 400.0)
    report = run_loop(policy, env, hz=100.0, controller_hz=400.0, gate=gate)
    assert env.executed[0][:4] == [0, 0.25, 0.5, 0.75]
    # The last action of two that are executed has none after it, before the next plan is made: it stays.
    assert env.executed[0][4:12] == [1, 1, 1, 1, 2, 2.25, 2.5, 2.75]
    assert (report["hz"], report["steps"], report["gate"]["steps"]) == (400.0, 24, 24)
    with pytest.raises(PolicyError, match="the gate was made for 400 Hz, the loop runs at 100 Hz"):
        run_loop(policy, env, hz=100.0, gate=gate)
