"""The door against Gymnasium-Robotics, and against the expert and the demonstrations recorded elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.envs import make_core
from noisepilot.errors import UserError

from .helpers import actions, check_against

DOOR = "AdroitHandDoor-v1"


@pytest.fixture(scope="module")
def gym():
    gymnasium = pytest.importorskip("gymnasium")
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    return gymnasium


@pytest.mark.parametrize("env", [DOOR, "AdroitHandDoorSparse-v1"])
def test_equals_gymnasium_robotics(gym, env):
    core = make_core(env, 3)
    # Beyond the limits, which clip.
    assert check_against(core, lambda: gym.make(env), range(3), actions(core, 15, 4, scale=1.3)) == 180
    assert core.spec.max_steps == gym.spec(env).max_episode_steps
    assert core.spec.control_hz == pytest.approx(100)
    assert (core.spec.obs["state"].shape, core.spec.action.shape) == ((39,), (28,))


@pytest.fixture(scope="module")
def expert(shared_data):
    """Chunks (K, 2, 4, A) of an expert that opens the door."""
    from noisepilot.experiments.actors_npz import load_actor_npz

    pytest.importorskip("gymnasium_robotics")
    actor = load_actor_npz(str(shared_data / "policies" / "policy_adroit_door_dapg.npz"), noise=0.0)
    core = make_core(DOOR, 2)
    state, chunks = core.reset([0, 1])["state"], []
    for _ in range(30):
        chunk = []
        for _ in range(4):
            chunk.append(actor.act({"state": state[:, None]}, [np.random.default_rng(0)] * 2))
            state = core.step(chunk[-1]).final_obs["state"]
        chunks.append(np.concatenate(chunk, 1))
    return np.array(chunks)


@pytest.mark.parametrize("reward_type", ["dense", "sparse"])
def test_an_opened_door_equals_gymnasium_robotics(gym, expert, reward_type):
    core = make_core(DOOR, 2, reward_type=reward_type)
    check_against(core, lambda: gym.make(DOOR, reward_type=reward_type), range(2), expert)
    assert core.step(expert[-1]).signals["success"].all()


@pytest.mark.parametrize(("reward_type", "without", "with_success"), [("success", 0, 1), ("penalty", -1, 0)])
def test_rewards_of_success_alone(expert, reward_type, without, with_success):
    core = make_core(DOOR, 2, reward_type=reward_type, terminate_on_success=True)
    core.reset([0, 1])
    steps = [core.step(chunk) for chunk in expert]
    valid, reward, success, ended = (
        np.concatenate(parts, 1)
        for parts in zip(*[(s.valid, s.reward, s.signals["success"], s.terminated) for s in steps], strict=True)
    )
    for slot in range(2):
        length = int(valid[slot].sum())
        assert 20 < length < 120
        assert ended[slot, length - 1]
        assert success[slot].sum() == success[slot, length - 1] == 1
        np.testing.assert_array_equal(reward[slot, :length], [without] * (length - 1) + [with_success])


def test_distance_costs_in_d4rls_reward(expert):
    ours, theirs = (make_core(DOOR, 2, reward_type=name) for name in ("d4rl", "dense"))
    for core in (ours, theirs):
        core.reset([0, 1])
    a, b = ours.step(expert[0]), theirs.step(expert[0])
    distance = np.linalg.norm(a.obs["state"][..., 35:38], axis=-1)
    np.testing.assert_allclose(b.reward - a.reward, 0.2 * distance, atol=1e-12)


def test_every_slot_keeps_its_door(expert):
    """Doors differ, the number of slots does not matter, and a state continues bit-equal elsewhere."""
    many, single = make_core(DOOR, 3), make_core(DOOR, 1)
    many.reset([5, 0, 6])
    single.reset([0])
    chunk = np.repeat(expert[:1, :1], 3, 1)[0]
    for _ in range(5):
        step, alone = many.step(chunk), single.step(chunk[:1])
    np.testing.assert_array_equal(step.obs["state"][1], alone.obs["state"][0])
    assert len(np.unique(step.obs["state"][:, -1, 32:35], axis=0)) == 3
    other = make_core(DOOR, 1)
    other.set_state(many.get_state([2]))
    np.testing.assert_array_equal(other.step(chunk[:1]).obs["state"][0], many.step(chunk).obs["state"][2])


def test_recorded_observations_are_relabelled(shared_data):
    """The demonstrations' own dense rewards jump by ten exactly where the door is open."""
    from noisepilot.envs.adroit import Door

    demos = np.load(shared_data / "demos" / "adroit_door_human25.npz")
    inner = np.ones(len(demos["actions"]), bool)
    inner[demos["episode_ends"] - 1] = False
    rows = np.flatnonzero(inner)
    found = Door(reward_type="success").relabel({"state": demos["observations"][rows + 1]})
    np.testing.assert_array_equal(found["success"], demos["rewards"][rows] > 15)
    np.testing.assert_array_equal(found["reward"], found["success"])
    assert not found["terminated"].any()


def test_bad_keywords():
    with pytest.raises(UserError, match=r"reward_type of the door 'spares'.*sparse"):
        make_core(DOOR, 1, reward_type="spares")
