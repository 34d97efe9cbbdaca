"""AntMaze, the kitchen and the Adroit hand."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.envs import make_core
from noisepilot.envs.d4rl import NAMES
from noisepilot.errors import UserError

from .common import check_adapter, need, play

need("robotics")


@pytest.mark.parametrize(
    ("env", "hz", "limit", "shapes"),
    [
        ("AntMaze_UMaze-v5", 20.0, 700, {"state": (29,), "goal": (2,)}),
        ("AdroitHandPen-v1", 100.0, 200, {"state": (45,)}),
        ("AdroitHandHammer-v1", 100.0, 200, {"state": (46,)}),
        ("AdroitHandRelocate-v1", 100.0, 200, {"state": (39,)}),
    ],
)
def test_adapter(env, hz, limit, shapes):
    check_adapter(env, hz, limit, shapes)


def test_d4rl_s_antmaze_starts_and_ends_where_d4rl_does():
    core = make_core("antmaze-umaze-v2", 4)
    assert core.spec.reference == (0.0, 1.0)
    seen = core.reset(range(4))
    np.testing.assert_allclose(seen["state"][:, :2], [[-4, 4]] * 4, atol=1.01)
    np.testing.assert_allclose(seen["goal"], [[-4, -4]] * 4, atol=1.01)
    core.close()
    with pytest.raises(UserError, match=r"goal_cell \(2, 1\) is a wall"):
        make_core("AntMaze_UMaze-v5", 1, goal_cell=[2, 1])


def test_kitchen_counts_what_is_done():
    from noisepilot.envs.kitchen import open_kitchen

    core = make_core("kitchen-partial-v0", 1)
    assert (core.spec.control_hz, core.spec.max_steps, core.spec.reference) == (12.5, 280, (0.0, 4.0))
    assert core.spec.signals == ("success", "completed")
    assert len(core.reset([0])["state"][0]) == len(core.spec.obs["state"].names) == 59
    core.close()
    env = open_kitchen(tasks_to_complete=["microwave"])
    env.reset(seed=0)
    inner = env.unwrapped
    index = core.spec.obs["state"].names.index("microwave")
    qpos = inner.data.qpos.copy()
    qpos[22] = -0.75
    inner.robot_env.set_state(qpos, inner.data.qvel)
    obs, reward, terminated, _, info = env.step(np.zeros(9))
    assert obs["state"][index] == pytest.approx(-0.75, abs=0.1)
    assert (reward, terminated, info["success"], info["completed"]) == (1.0, True, True, 1.0)


def test_d4rl_s_rewards():
    """D4RL's differs from Gymnasium-Robotics' by the sign of one distance, which the state of the ball shows."""
    dense, d4rl = (make_core("AdroitHandRelocate-v1", 1, reward_type=r) for r in ("dense", "d4rl"))
    assert NAMES["relocate-human-v1"].reference == d4rl.spec.reference
    assert dense.spec.reference is None
    for core in (dense, d4rl):
        core.reset([0])
    for chunk in play(dense, 3):
        paid, ours = dense.step(chunk), d4rl.step(chunk)
        distance = np.linalg.norm(paid.obs["state"][..., 30:33], axis=-1)
        np.testing.assert_allclose(ours.reward, paid.reward - 0.2 * distance, atol=1e-6)
    for core in (dense, d4rl):
        core.close()
