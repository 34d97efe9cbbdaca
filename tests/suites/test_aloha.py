"""ALOHA in simulation."""

from __future__ import annotations

import numpy as np

from noisepilot.envs import make_core

from .common import check_adapter, need

need("aloha")


def test_adapter():
    spec = check_adapter("gym_aloha/AlohaInsertion-v0", 50.0, 300, {"state": (14,), "environment_state": (14,)})
    assert spec.obs["environment_state"].names[:3] == ("peg_x", "peg_y", "peg_z")
    assert spec.action.high is not None
    assert max(spec.action.high) > 3  # radians, not gym-aloha's 1


def test_equals_gym_aloha():
    from gym_aloha.env import AlohaEnv

    theirs = AlohaEnv("transfer_cube", obs_type="pixels_agent_pos")
    seen, _ = theirs.reset(seed=5)
    core = make_core("gym_aloha/AlohaTransferCube-v0", 1, cameras=["top"])
    ours = core.reset([5])
    np.testing.assert_array_equal(ours["state"][0], seen["agent_pos"])
    assert np.abs(ours["images.top"][0].astype(float) - seen["pixels"]["top"]).mean() < 2
    target = np.zeros(14, np.float32)
    target[[1, 8]] = -0.8
    for _ in range(3):
        seen, reward, *_ = theirs.step(target)
        step = core.step(target[None, None])
        np.testing.assert_array_equal(step.obs["state"][0, 0], seen["agent_pos"])
        assert step.reward[0, 0] == reward
    core.close()


def test_a_simulation_that_diverges_ends_without_success():
    core = make_core("gym_aloha/AlohaTransferCube-v0", 1)
    core.reset([0])
    rng = np.random.default_rng(0)
    low, high = np.array(core.spec.action.low), np.array(core.spec.action.high)
    for _ in range(60):
        step = core.step(rng.uniform(low, high, (1, 5, 14)))
        if step.ended[0]:
            break
    assert np.isfinite(step.obs["state"]).all()
    assert not step.signals["success"].any()
    core.close()
