"""Meta-World."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.envs import make_core
from noisepilot.envs.suites import METAWORLD
from noisepilot.errors import UserError

from .common import check_adapter, expert_success, need

need("metaworld")


def test_adapter():
    spec = check_adapter("metaworld/drawer-open-v3", 80.0, 500, {"state": (39,)})
    assert spec.obs["state"].names[:5] == ("hand_x", "hand_y", "hand_z", "gripper", "object1_x")
    assert spec.action.names[-1] == "gripper"


def test_all_tasks_are_known():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert sorted(f"{task}-v3" for task in METAWORLD) == sorted(ALL_V3_ENVIRONMENTS)


def test_the_goal_is_seen_and_drawn_from_the_seed():
    core = make_core("metaworld/reach-v3", 2)
    goals = core.reset([0, 1])["state"][:, -3:]
    assert (goals != 0).all()
    assert not np.array_equal(goals[0], goals[1])
    core.close()


@pytest.mark.parametrize("task", ["reach", "button-press-topdown", "window-close"])
def test_experts_succeed(task):
    assert expert_success(f"metaworld/{task}-v3") == 4


def test_cameras_and_sparse_rewards():
    core = make_core("metaworld/reach-v3", 1, cameras=["corner2"], reward_type="penalty", image_height=32)
    picture = core.reset([0])["images.corner2"]
    assert (picture.shape, picture.dtype) == ((1, 32, 84, 3), np.uint8)
    assert picture.std() > 10
    assert core.step(np.zeros((1, 2, 4))).reward.tolist() == [[-1, -1]]
    core.close()
    with pytest.raises(UserError, match="unknown camera 'corner9': did you mean 'corner"):
        make_core("metaworld/reach-v3", 1, cameras=["corner9"])
    with pytest.raises(UserError, match="unknown reward_type 'dense'"):
        make_core("metaworld/reach-v3", 1, reward_type="dense")
