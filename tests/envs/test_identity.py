"""Ids that may name one environment, and those that cannot."""

import pytest

from noisepilot.envs.identity import known_as, may_be_same


@pytest.mark.parametrize(
    ("recorded", "env", "same"),
    [
        ("", "Hopper-v5", True),
        ("Hopper-v2", "Hopper-v5", True),
        ("hopper-medium-v2", "Hopper-v5", True),
        ("Walker2d-v5", "Hopper-v5", False),
        ("PointMaze_Medium_Diverse_GRDense-v3", "PointMaze_Medium-v3", True),
        ("PointMaze_Large-v3", "PointMaze_Medium-v3", False),
        ("AntMaze_Medium_Diverse_GR-v4", "AntMaze_Medium-v5", True),
        ("AntMaze_UMaze-v5", "PointMaze_UMaze-v3", False),
        ("AdroitHandDoorSparse-v1", "AdroitHandDoor-v1", True),
        ("PickPlaceCan", "robosuite/Can", True),
        ("Lift", "robosuite/Can", False),
        ("SawyerLift", "robosuite/Lift", True),
        ("Libero_Tabletop_Manipulation", "libero/goal/3", True),
        ("libero/goal/2", "libero/goal/3", False),
        ("metaworld/push-v3", "metaworld/reach-v3", False),
        ("ogbench/cube-single-play-v0", "ogbench/cube-single-noisy-singletask-v0", True),
        ("ogbench/cube-single-play-v0", "ogbench/cube-double-play-v0", False),
        ("Hopper-v5", "lab:windy_hopper", True),
        ("lab:pick", "lab:place", False),
        ("lab:pick", "lab:pick", True),
    ],
)
def test_same_or_not(recorded, env, same):
    assert may_be_same(recorded, env) is may_be_same(env, recorded) is same


def test_names_of_others_become_ids():
    assert [known_as(name) for name in ("PickPlaceCan", "pen-human-v1", "Hopper-v5", "minigrid-fourrooms-v0")] == [
        "robosuite/Can",
        "AdroitHandPen-v1",
        "Hopper-v5",
        "minigrid-fourrooms-v0",
    ]
