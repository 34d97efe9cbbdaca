"""OGBench."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.envs import make_core
from noisepilot.envs.suites import OGBENCH
from noisepilot.errors import UserError

from .common import check_adapter, expert_success, need

need("ogbench")


@pytest.mark.parametrize(
    ("env", "hz", "limit", "size"),
    [
        ("ogbench/cube-single-play-v0", 20.0, 200, 28),
        ("ogbench/antmaze-large-navigate-v0", 10.0, 1000, 29),
        ("ogbench/pointmaze-teleport-stitch-v0", 10.0, 1000, 2),
    ],
)
def test_adapter(env, hz, limit, size):
    check_adapter(env, hz, limit, {"state": (size,), "goal": (size,)})


def test_one_task():
    spec = check_adapter("ogbench/puzzle-3x3-play-singletask-v0", 20.0, 500, {"state": (55,)}, task=2)
    assert spec.kwargs == {"task": 2}
    with pytest.raises(UserError, match="or 1 to 5, not 6"):
        make_core("ogbench/puzzle-3x3-play-v0", 1, task=6)


def test_time_limits_are_ogbench_s():
    import gymnasium as gym
    import ogbench  # noqa: F401

    assert {env: gym.spec(f"{env}-v0").max_episode_steps for env in OGBENCH} == OGBENCH


def test_a_task_draws_its_goal():
    core = make_core("ogbench/cube-single-play-v0", 3, task=1)
    goals = core.reset([0, 1, 2])["goal"][:, 19:22]
    np.testing.assert_allclose(goals, goals[:1].repeat(3, 0), atol=0.05)
    core.close()


def test_experts_succeed():
    assert expert_success("ogbench/cube-single-play-v0") == 4
    core = make_core("ogbench/scene-play-v0", 1)
    core.reset([0])
    with pytest.raises(UserError, match="for cubes only"):
        core.expert()
    core.close()
