"""LIBERO: the published protocol on real tasks. Building one takes tens of seconds, so few are built."""

from __future__ import annotations

import os

import numpy as np
import pytest

from noisepilot.envs import libero, libero_assets, make_core
from noisepilot.envs.remote import make_remote
from noisepilot.errors import UserError

from .common import expert_success, need

need("libero")
STOVE, BOWL = "libero/goal/7", "libero/goal/8"
CAMERAS = ("agentview", "robot0_eye_in_hand")


@pytest.fixture(scope="module", autouse=True)
def assets():
    """Those of the shared data where none are installed."""
    data = os.environ.get("NOISEPILOT_DATA", "")
    shared = os.path.join(data, "libero_assets")
    with pytest.MonkeyPatch.context() as patch:
        if not libero_assets.folder().is_dir():
            if not os.path.isdir(shared):
                pytest.skip("noisepilot envs install libero")
            patch.setenv("NOISEPILOT_LIBERO_ASSETS", shared)
        yield


@pytest.fixture(scope="module")
def stove():
    """One slot, `turn on the stove`."""
    core = make_core(STOVE, 1, cameras=list(CAMERAS), image_height=48, image_width=64)
    yield core
    core.close()


def chunk(n=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (1, n, 7))


def test_facts(stove):
    spec = stove.spec
    assert (spec.id, spec.instruction) == (STOVE, "turn on the stove")
    assert (spec.control_hz, spec.max_steps, spec.signals) == (20, 300, ("success",))
    assert {name: array.shape for name, array in spec.obs.items()} == {
        "object": (56,),
        "fixture": (25,),
        "robot0_eef_pos": (3,),
        "robot0_eef_quat": (4,),
        "robot0_gripper_qpos": (2,),
        **{f"images.{name}": (48, 64, 3) for name in CAMERAS},
    }
    assert spec.obs["object"].names[:3] == tuple(f"akita_black_bowl_1_{axis}" for axis in "xyz")
    assert spec.obs["fixture"].names[-1] == "flat_stove_1_button"
    assert spec.action.names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert spec.action.unit.startswith("1 is 0.05 m or 0.5 rad")


def test_an_episode_depends_on_its_seed_alone(stove):
    """Bit for bit, pictures too: whatever was done before, and the same again after fifty fixed states."""
    first = stove.reset([3])
    way = stove.step(chunk())
    stove.reset([4])
    stove.step(np.full((1, 20, 7), 0.7))  # somewhere else, and with other controllers' goals
    for seed in (3, 53):
        for name, value in stove.reset([seed]).items():
            np.testing.assert_array_equal(value, first[name])
        again = stove.step(chunk())
        for name, value in way.obs.items():
            np.testing.assert_array_equal(again.obs[name], value)
    assert not np.array_equal(stove.reset([4])["object"], first["object"])


def test_an_episode_is_the_same_in_a_fresh_simulator(stove):
    stove.reset([7])
    stove.step(np.full((1, 10, 7), 0.7))
    here = stove.reset([5]), stove.step(chunk()).obs
    fresh = make_core(STOVE, 1, cameras=list(CAMERAS), image_height=48, image_width=64)
    there = fresh.reset([5]), fresh.step(chunk()).obs
    fresh.close()
    for ours, theirs in zip(here, there, strict=True):
        for name, value in ours.items():
            np.testing.assert_array_equal(theirs[name], value)


def test_ten_steps_of_rest(stove):
    """What follows the fixed state: the fingers are open, time has passed, the objects lie still."""
    obs = stove.reset([0])
    state = stove.get_state()
    assert state["physics"][0, 0] == pytest.approx(0.5 + fixed_state(0)[0])
    assert obs["robot0_gripper_qpos"][0, 0] > 0.035
    later = stove.step(np.tile([0, 0, 0, 0, 0, 0, -1.0], (1, 10, 1)))
    np.testing.assert_allclose(later.obs["object"][0, -1, :3], obs["object"][0, :3], atol=2e-3)
    assert not np.array_equal(state["physics"][0, 1:10], fixed_state(0)[1:10])


def fixed_state(index):
    from noisepilot.envs import isolated
    from noisepilot.envs.libero_package import initial_states, package

    own = list((isolated.home("libero") / "venv").glob("lib/python*/site-packages/libero/libero"))
    root = own[0] if own else package()
    states = initial_states(root, "libero_goal", "turn_on_the_stove")
    assert len(states) == 50
    return states[index]


def test_success_ends_the_episode(stove):
    """The knob of the stove turned is the task done; the flame is seen."""
    dark = stove.reset([0])["images.agentview"]
    state = stove.get_state()
    knob = 1 + 37 + 3  # behind the time, arm, gripper, four objects, and three drawers
    turned = state["physics"].copy()
    turned[0, knob] = 0.8
    obs = stove.reset([0], state={"physics": turned})
    assert obs["fixture"][0, -1] == pytest.approx(0.8, abs=1e-6)
    assert not np.array_equal(obs["images.agentview"], dark)
    step = stove.step(np.zeros((1, 5, 7)))
    assert step.valid.tolist() == [[True, False, False, False, False]]
    assert (step.reward[0, 0], step.signals["success"][0, 0], step.terminated[0, 0]) == (1, 1, True)
    np.testing.assert_array_equal(stove.reset([0])["images.agentview"], dark)


def test_states_are_restored_by_replay(stove):
    stove.reset([2])
    stove.step(chunk())
    state = stove.get_state()
    ahead = stove.step(chunk(seed=1)).obs
    stove.set_state(state)
    for name, value in stove.step(chunk(seed=1)).obs.items():
        np.testing.assert_array_equal(value, ahead[name])


@pytest.mark.parametrize(
    ("layout", "names", "turned"),
    [
        ("hdf5", {"ee_pos", "ee_ori", "gripper_states", "joint_states", "images.agentview"}, np.s_[::-1]),
        ("lerobot", {"state", "images.image"}, np.s_[:, ::-1]),
    ],
)
def test_layouts_of_data_sets(stove, layout, names, turned):
    core = make_core(STOVE, 1, layout=layout, cameras=["agentview"], image_height=48, image_width=64)
    obs, own = core.reset([3]), stove.reset([3])
    core.close()
    assert set(obs) == names
    place = obs["state"][0, :3] if layout == "lerobot" else obs["ee_pos"][0]
    np.testing.assert_array_equal(place, own["robot0_eef_pos"][0])
    picture = obs["images.image" if layout == "lerobot" else "images.agentview"][0]
    np.testing.assert_array_equal(picture, own["images.agentview"][0][turned])


def test_the_expert_puts_the_bowl_on_the_plate(stove):
    assert expert_success(BOWL, 2, max_episode_steps=100) == 2
    stove.reset([0])
    with pytest.raises(UserError, match="scripted expert puts a bowl on a plate"):
        stove.expert()


def test_quicker_steps_are_the_same_to_the_bit(monkeypatch):
    """The expert's episode until the bowl is in the air, and the same actions as robosuite steps them."""
    quick = make_core(BOWL)
    slow = "noisepilot.tests.suites.libero_slow:open_slow"
    monkeypatch.setattr(libero, "make_remote", lambda _, *rest: make_remote(slow, *rest))
    cores = quick, make_core(BOWL)
    low = [core.reset([3])["object"][0, 2] for core in cores]
    for _ in range(45):
        action = quick.expert()
        seen = [core.step(action).obs["object"] for core in cores]
        np.testing.assert_array_equal(*seen)
    assert seen[0][0, -1, 2] > low[0] + 0.03
    np.testing.assert_array_equal(*(core.get_state()["physics"] for core in cores))
    for core in cores:
        core.close()


def test_a_missing_asset_is_named(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    monkeypatch.setenv("NOISEPILOT_LIBERO_ASSETS", str(tmp_path))
    with pytest.raises(UserError, match=r"^'turn_on_the_stove' needs \S+, which \S+ lacks: noisepilot envs install"):
        make_core(STOVE)


def test_unknown_camera():
    with pytest.raises(UserError, match="unknown camera of LIBERO 'agent': did you mean 'agentview'"):
        make_core(STOVE, 1, cameras=["agent"])
