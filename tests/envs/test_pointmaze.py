"""PointMaze against Gymnasium-Robotics, and the controller that walks it."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.envs import make_core
from noisepilot.envs.maze import MAPS, Maze, named_map
from noisepilot.envs.waypoint import WaypointController, maze_of
from noisepilot.errors import UserError

from .helpers import actions, check_against

CROSS = [[1, 1, 1, 1, 1], [1, "r", 0, "g", 1], [1, 0, 0, "c", 1], [1, 1, 1, 1, 1]]


@pytest.fixture(scope="module")
def gym():
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register_envs(pytest.importorskip("gymnasium_robotics"))
    return gymnasium


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("suffix", ["", "Dense"])
def test_equals_gymnasium_robotics(gym, name, suffix):
    env = f"PointMaze_{name}{suffix}-v3"
    core = make_core(env, 3)
    chunks = biased(core, 6, 4)
    assert check_against(core, lambda: gym.make(env), range(3), chunks) == 72
    assert core.spec.max_steps == gym.spec(env).max_episode_steps


@pytest.mark.parametrize("kwargs", [{"continuing_task": False}, {"reset_target": True}, {"maze_map": CROSS}])
def test_keywords_are_gymnasium_robotics(gym, kwargs):
    """Led to the goal, so that episodes end there or new goals are drawn."""
    core = make_core("PointMaze_Open-v3", 4, **kwargs)
    controller = WaypointController(maze=maze_of(core.spec))
    chunks, obs = [], core.reset(range(4))
    for _ in range(120):
        force = controller.act({k: v[:, None] for k, v in obs.items()}, generators(4))
        chunks.append(np.repeat(force, 2, 1))
        obs = core.step(chunks[-1]).final_obs
    core = make_core("PointMaze_Open-v3", 4, **kwargs)
    check_against(core, lambda: gym.make("PointMaze_Open-v3", **kwargs), range(4), np.array(chunks))


def test_cells_are_gymnasium_robotics_options(gym):
    core = make_core("PointMaze_Medium-v3", 2, goal_cell=[1, 1], reset_cell=[6, 6])
    obs = core.reset([3, 4])
    env = gym.make("PointMaze_Medium-v3")
    for slot, seed in enumerate((3, 4)):
        theirs, _ = env.reset(seed=seed, options={"goal_cell": np.array([1, 1]), "reset_cell": np.array([6, 6])})
        np.testing.assert_array_equal(obs["state"][slot], theirs["observation"])
        np.testing.assert_array_equal(obs["goal"][slot], theirs["desired_goal"])


def test_speed_is_limited():
    core = make_core("PointMaze_Open-v3", 1, reset_cell=[2, 1], goal_cell=[1, 5], position_noise_range=0.0)
    core.reset([0])
    step = core.step(np.tile([1.0, 0.0], (1, 40, 1)))
    # The limit acts at the beginning of an action, whose 24 m/s^2 come on top of it.
    assert 5.0 < step.obs["state"][0, :, 2].max() < 5.3


def test_state_continues_bit_equal_with_its_generator():
    core = make_core("PointMaze_Open-v3", 2, reset_target=True)
    controller = WaypointController(maze=maze_of(core.spec))
    obs = core.reset([0, 1])
    state, first = core.get_state(), None
    for _ in range(2):
        obs, goals = core.set_state(state), []
        for _ in range(200):
            step = core.step(controller.act({k: v[:, None] for k, v in obs.items()}, generators(2)))
            obs = step.final_obs
            goals.append(obs["goal"])
        first = first or goals
    np.testing.assert_array_equal(first, goals)
    assert len(np.unique(np.array(goals)[:, 0], axis=0)) > 2


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("gain", [10.0, 3.0])
def test_controller_reaches_the_goal(noise, gain):
    core = make_core("PointMaze_Medium-v3", 50, continuing_task=False)
    controller = WaypointController(maze=maze_of(core.spec), noise=noise, gain=gain)
    controller.check_env(core.spec)
    obs, rng, reached = core.reset(range(50)), generators(50), np.zeros(50)
    ended = np.zeros(50, bool)
    while not ended.all():
        step = core.step(controller.act({k: v[:, None] for k, v in obs.items()}, rng))
        obs, reached, ended = step.final_obs, reached + step.signals["success"][:, 0], ended | step.ended
    assert (reached == 1).all()


def test_controller_is_for_its_maze_only():
    controller = WaypointController(maze=Maze(named_map("Medium")))
    with pytest.raises(UserError, match="another maze"):
        controller.check_env(make_core("PointMaze_UMaze-v3").spec)
    with pytest.raises(UserError, match="no PointMaze"):
        controller.check_env(make_core("Hopper-v5").spec)


def test_ways_through_a_maze():
    maze = Maze(named_map("UMaze"))
    step = maze.next_cells((3, 1))
    cell, way = (1, 1), []
    while cell != (3, 1):
        cell = tuple(step[cell].tolist())
        way.append(cell)
    assert way == [(1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]
    assert step[0, 0].tolist() == [0, 0]
    np.testing.assert_array_equal(maze.cell_of(maze.centers(np.array(way))), way)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"reward_type": "spars"}, "'sparse' or 'dense'"),
        ({"goal_cell": [0, 0]}, "is a wall"),
        ({"reset_cell": [9, 9]}, "outside the maze"),
        ({"goal_cell": 3}, "a row and a column"),
        ({"maze_map": [[1, 1], [1]]}, "equal length"),
        ({"maze_map": [[1, "x", 0, 0]]}, "holds"),
        ({"maze_map": [[1, 1, 1]]}, "needs a cell"),
        ({"maze_map": [[1, 0, 1]]}, "only cell to start from"),
        ({"maze_map": [[1, "r", 0, 1]], "goal_cell": [0, 1]}, "only cell to start from"),
        ({"continuing_tasks": False}, "did you mean 'continuing_task'"),
    ],
)
def test_keywords_refused_by_name(kwargs, words):
    with pytest.raises(UserError, match=words):
        make_core("PointMaze_UMaze-v3", **kwargs)


def biased(core, chunks: int, n: int) -> np.ndarray:
    """Random forces with a drift per slot, so that walls and the speed limit are met."""
    drift = np.random.default_rng(1).uniform(-1, 1, (core.num_envs, 1, 2))
    return actions(core, chunks, n) + drift


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(slot) for slot in range(count)]
