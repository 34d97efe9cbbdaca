"""MuJoCo tasks against Gymnasium itself: same seeds, same actions, same everything."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.envs import make_core
from noisepilot.envs.registry import TABLE, Entry
from noisepilot.errors import UserError

from .helpers import actions, check_against, close

ROLLOUT = ["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Swimmer-v5", "InvertedPendulum-v5"]
THREADS = ["Ant-v5", "Humanoid-v5", "Reacher-v5", "Pusher-v5", "InvertedDoublePendulum-v5"]

VARIANTS = [
    ("Hopper-v5", {"exclude_current_positions_from_observation": False, "healthy_reward": 0.3}),
    ("Hopper-v5", {"terminate_when_unhealthy": False, "forward_reward_weight": 2.0, "ctrl_cost_weight": 0.5}),
    ("Hopper-v5", {"healthy_z_range": [1.2, 1.3], "healthy_state_range": [-2, 2], "frame_skip": 2}),
    ("Walker2d-v5", {"healthy_angle_range": [-0.05, 0.05], "xml_file": "walker2d.xml"}),
    ("Walker2d-v5", {"healthy_z_range": [1.2, 1.3], "reset_noise_scale": 0.1}),
    ("HalfCheetah-v5", {"ctrl_cost_weight": 1.0, "reset_noise_scale": 0.0, "forward_reward_weight": 0.5}),
    ("Swimmer-v5", {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.1}),
    ("InvertedPendulum-v5", {"reset_noise_scale": 0.1}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.1}),
    ("Ant-v5", {"contact_force_range": [-0.1, 0.1], "main_body": 2, "healthy_z_range": [0.5, 0.6]}),
    ("Ant-v5", {"main_body": "torso", "ctrl_cost_weight": 0.1, "healthy_reward": 3.0}),
    ("Humanoid-v5", {"include_cinert_in_observation": False, "include_cvel_in_observation": False}),
    ("Humanoid-v5", {"include_qfrc_actuator_in_observation": False, "contact_cost_range": [0.0, 1e-3]}),
    ("Humanoid-v5", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 1e-3}),
    ("Reacher-v5", {"reward_dist_weight": 2.0, "reward_control_weight": 0.5}),
    ("Pusher-v5", {"reward_near_weight": 2.0, "reward_dist_weight": 0.5, "reward_control_weight": 1.0}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 1.0, "reset_noise_scale": 0.01}),
]


@pytest.mark.parametrize("env", ROLLOUT + THREADS)
def test_equals_gymnasium(env):
    core = make_core(env, 3)
    compared = check_against(core, lambda: gym.make(env), range(3), actions(core, 12, 4, scale=1.3))
    assert compared > 10
    core.close()


@pytest.mark.parametrize(("env", "kwargs"), VARIANTS)
def test_keywords_are_gymnasiums(env, kwargs):
    core = make_core(env, 2, **kwargs)
    check_against(core, lambda: gym.make(env, **kwargs), range(5, 7), actions(core, 6, 3))
    assert core.spec.kwargs == kwargs
    core.close()


@pytest.mark.parametrize("env", ["HalfCheetah-v5", *THREADS[:4]])
def test_equals_gymnasium_over_a_thousand_steps(env):
    """With the solver's warm start carried over, chaos finds nothing to amplify."""
    kwargs: dict[str, Any] = {"max_episode_steps": 1000}
    if env in ("Ant-v5", "Humanoid-v5"):
        kwargs["terminate_when_unhealthy"] = False
    core = make_core(env, 1, **kwargs)
    compared = check_against(core, lambda: gym.make(env, **kwargs), range(1), actions(core, 125, 8))
    assert compared == 1000
    core.close()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), n=st.integers(1, 5), scale=st.floats(0, 3))
def test_one_chunk_from_any_seed(seed, n, scale):
    core = make_core("Hopper-v5", 1)
    check_against(core, lambda: gym.make("Hopper-v5"), range(seed, seed + 1), actions(core, 2, n, seed, scale))
    core.close()


@pytest.mark.parametrize("env", ["Hopper-v5", "Ant-v5"])
def test_chunks_only_group_actions(env):
    whole, single = make_core(env, 2), make_core(env, 2)
    whole.reset([0, 1])
    single.reset([0, 1])
    chunk = actions(whole, 1, 6)[0]
    together = whole.step(chunk)
    for k in range(6):
        alone = single.step(chunk[:, k : k + 1])
        np.testing.assert_array_equal(alone.obs["state"][:, 0], together.obs["state"][:, k])
    whole.close()
    single.close()


@pytest.mark.parametrize("env", ["Hopper-v5", "Humanoid-v5"])
def test_termination_inside_a_chunk(env):
    core = make_core(env, 2)
    core.reset([0, 1])
    step = core.step(actions(core, 1, 150)[0])
    assert step.ended.all()
    assert (step.terminated.sum(1) == 1).all()
    last = step.valid.sum(1) - 1
    for slot in range(2):
        assert step.terminated[slot, last[slot]]
        assert (step.obs["state"][slot, last[slot] :] == step.final_obs["state"][slot]).all()
        assert (step.reward[slot, last[slot] + 1 :] == 0).all()
    # The state is that of the last action executed, not of those that were simulated in vain.
    np.testing.assert_array_equal(core.set_state(core.get_state())["state"], step.final_obs["state"])
    core.close()


def test_time_limit_inside_a_chunk():
    core = make_core("HalfCheetah-v5", 2, max_episode_steps=6)
    core.reset([0, 1])
    chunk = actions(core, 1, 4)[0]
    assert not core.step(chunk).ended.any()
    step = core.step(chunk)
    assert step.truncated.tolist() == [[False, True, False, False]] * 2
    assert step.valid.tolist() == [[True, True, False, False]] * 2
    assert core.spec.max_steps == 6
    core.close()


@pytest.mark.parametrize("env", ["Hopper-v5", "Humanoid-v5", "PointMaze_UMaze-v3"])
def test_idle_slots_repeat_what_they_saw(env):
    core = make_core(env, 3, max_episode_steps=3)
    core.reset([0, 1, 2])
    chunk = actions(core, 1, 4)[0]
    before = core.step(chunk)
    core.reset([7], [1])
    step = core.step(chunk)
    assert step.valid.any(1).tolist() == [False, True, False]
    for name, value in step.obs.items():
        assert (value[0] == before.final_obs[name][0]).all()
    assert (step.reward[[0, 2]] == 0).all()
    idle = core.step(chunk)
    assert not idle.valid.any()
    assert not idle.ended.any()
    assert {k: v.shape for k, v in idle.obs.items()} == {k: v.shape for k, v in step.obs.items()}
    core.close()


def test_slots_do_not_influence_each_other():
    many, one = make_core("Hopper-v5", 5), make_core("Hopper-v5", 1)
    many.reset(range(5))
    one.reset([3])
    chunk = actions(many, 1, 4)[0]
    np.testing.assert_array_equal(many.step(chunk).obs["state"][3], one.step(chunk[3:4]).obs["state"][0])
    many.close()
    one.close()


@pytest.mark.parametrize("env", ["Hopper-v5", "Humanoid-v5", "Ant-v5"])
def test_state_continues_bit_equal(env):
    core = make_core(env, 3, terminate_when_unhealthy=False)
    core.reset(range(3))
    chunks = actions(core, 3, 4)
    seen = core.step(chunks[0]).final_obs["state"]
    state = core.get_state([0, 2])
    once = core.step(chunks[1])
    core.step(chunks[2])
    other = make_core(env, 4, terminate_when_unhealthy=False)
    other.reset(range(10, 14))
    for target, slots in ((core, [0, 2]), (other, [1, 3])):
        np.testing.assert_array_equal(target.set_state(state, slots)["state"], seen[[0, 2]])
        again = np.zeros((target.num_envs, 4, core.spec.action.dim))
        again[slots] = chunks[1][[0, 2]]
        step = target.step(again)
        np.testing.assert_array_equal(step.obs["state"][slots], once.obs["state"][[0, 2]])
        np.testing.assert_array_equal(step.reward[slots], once.reward[[0, 2]])
    core.close()
    other.close()


def test_state_keeps_the_clock_and_reset_from_state_does_not():
    core = make_core("HalfCheetah-v5", 1, max_episode_steps=5)
    core.reset([0])
    chunk = actions(core, 1, 3)[0]
    core.step(chunk)
    state = core.get_state()
    assert core.step(chunk).ended.all()
    core.set_state(state)
    assert core.step(chunk).truncated.sum() == 1
    core.reset([1], state=state)
    assert not core.step(chunk).ended.any()
    core.close()


def test_backends_of_the_table():
    own_core = {env for env, entry in TABLE.items() if entry.make != Entry.make}
    assert {env for env, entry in TABLE.items() if entry.backend == "threads"} - own_core == set(THREADS)
    for env in THREADS + ROLLOUT:
        core: Any = make_core(env)
        assert bool(core.task.reads) == (env in THREADS)
        made: Any = gym.make(env)
        assert core.spec.max_steps == made.spec.max_episode_steps
        assert core.spec.obs["state"].shape == made.observation_space.shape
        assert core.spec.control_hz == pytest.approx(1 / made.unwrapped.dt)
        close(np.float32(core.spec.action.high), made.action_space.high)
        assert len(core.spec.action.names) == core.spec.action.dim
        core.close()
        made.close()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"ctrl_cost_wieght": 1.0}, "did you mean 'ctrl_cost_weight'"),
        ({"render_mode": "human"}, "takes no 'render_mode'"),
        ({"max_episode_step": 5}, "did you mean 'max_episode_steps'"),
        ({"max_episode_steps": 0}, "max_episode_steps of Hopper-v5 must be a positive integer"),
        ({"frame_skip": 0}, "frame_skip of Hopper-v5 cannot be 0"),
        ({"healthy_z_range": 1.0}, "expected two numbers"),
        ({"terminate_when_unhealthy": "no"}, "expected True or False"),
        ({"xml_file": "hoper.xml"}, "there is no file"),
    ],
)
def test_keywords_refused_by_name(kwargs, words):
    with pytest.raises(UserError, match=words):
        make_core("Hopper-v5", **kwargs)


def test_missing_body_and_broken_model(tmp_path):
    with pytest.raises(UserError, match="no body 'tors'"):
        make_core("Ant-v5", main_body="tors")
    (tmp_path / "broken.xml").write_text("<mujoco><nonsense/></mujoco>")
    with pytest.raises(UserError, match="xml_file of Hopper-v5"):
        make_core("Hopper-v5", xml_file=str(tmp_path / "broken.xml"))


def test_bad_calls():
    core = make_core("Hopper-v5", 2)
    core.reset([0, 1])
    for call, words in (
        (lambda: core.step(np.zeros((2, 3))), r"shape \(2, n, 3\)"),
        (lambda: core.step(np.zeros((1, 4, 3))), r"shape \(2, n, 3\)"),
        (lambda: core.step(np.full((2, 4, 3), np.nan)), "not finite"),
        (lambda: core.reset([0]), "one seed per slot"),
        (lambda: core.reset([-1, 0]), "negative"),
        (lambda: core.reset([0], [2]), "not all within"),
        (lambda: make_core("Hopper-v5", 0), "at least 1"),
    ):
        with pytest.raises(UserError, match=words):
            call()
    core.close()


def test_a_blown_up_simulation_leaves_no_log_file(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    core = make_core("Hopper-v5")
    core.reset([0])
    state = core.get_state()
    state["physics"][0, 5] = 1e12
    core.set_state(state)
    core.step(np.zeros((1, 2, 3)))
    assert "unstable" in caplog.text
    assert not list(tmp_path.iterdir())
    core.close()
