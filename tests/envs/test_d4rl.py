"""D4RL's names: environment, file and score."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.datasets.readers import load
from noisepilot.envs import make_core
from noisepilot.envs.d4rl import NAMES, reference, resolve, score
from noisepilot.envs.registry import TABLE
from noisepilot.errors import UserError
from noisepilot.experiments.cli import parse
from noisepilot.experiments.eval_verbs import Eval


def test_all_published_scores():
    assert len(NAMES) == 147
    for name, low, high in (
        ("hopper-medium-v2", -20.272305, 3234.3),
        ("halfcheetah-medium-expert-v0", -280.178953, 12135.0),
        ("pen-human-v1", 96.262799, 3076.8331017826877),
        ("kitchen-partial-v0", 0.0, 4.0),
        ("antmaze-umaze-v2", 0.0, 1.0),
        ("maze2d-large-dense-v1", 30.569041, 303.4857382709002),
        ("bullet-ant-expert-v0", 373.705955, 2650.495),
    ):
        assert NAMES[name].reference == (low, high)
        assert score(name, low) == 0
        assert score(name, high) == pytest.approx(100)
        assert score(name, (low + high) / 2) == pytest.approx(50)


def test_no_score_without_a_reference():
    with pytest.raises(UserError, match=r"no score without a reference\) 'hopper-simple-v2'"):
        score("hopper-simple-v2", 1.0)
    with pytest.raises(UserError, match="there is no environment for flow-ring-random-v0"):
        resolve("flow-ring-random-v0", {})


@pytest.mark.parametrize("name", [name for name, found in NAMES.items() if found.env in TABLE])
def test_native_environments_take_the_keywords(name):
    env, kwargs = resolve(name, {})
    _, limit = TABLE[env].build_task(env, kwargs)
    assert limit == {"maze2d-open": 150}.get(name.rpartition("-dense")[0] or name.rpartition("-v")[0], limit)
    assert reference(env, kwargs) == NAMES[name].reference
    assert reference(env, {**kwargs, "max_episode_steps": 7}) is None


def test_make_by_name():
    core = make_core("maze2d-umaze-v1", 2)
    assert (core.spec.id, core.spec.max_steps, core.spec.reference) == ("PointMaze_UMaze-v3", 300, (23.85, 161.86))
    goal = core.reset([0, 1])["goal"]
    assert np.abs(goal - core.task.maze.centers(np.array([[1, 1]]))).max() <= 0.1
    core.close()
    again = make_core(core.spec.id, 1, **core.spec.kwargs)
    assert again.spec.reference == core.spec.reference
    again.close()
    other = make_core("hopper-medium-v2", 1, healthy_reward=2.0)
    assert other.spec.reference is None
    other.close()


def test_data_by_name(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="pip install 'noisepilot[hdf5]'")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"put hopper_medium-v2.hdf5 into .*, or name its folder in D4RL_DATASET_DIR$"):
        load("hopper-medium-v2")
    with pytest.raises(UserError, match="Minari has it as D4RL/pen/human-v2"):
        load("pen-human-v1")
    with h5py.File(tmp_path / "hopper_medium-v2.hdf5", "w") as file:
        file["observations"], file["actions"] = np.zeros((3, 11), np.float32), np.zeros((3, 3), np.float32)
        file["terminals"], file["timeouts"] = np.zeros(3, bool), np.array([False, False, True])
    assert load("hopper-medium-v2").num_steps == 3


def test_a_name_says_how_its_environment_differs(capsys):
    parse(Eval, ["--policy", "p", "--env", "walker2d-medium-v2"], "noisepilot eval")
    said = capsys.readouterr().err
    assert "Walker2d-v5, recorded in Gym's version 2" in said
    parse(Eval, ["--policy", "p", "--env", "Walker2d-v5"], "noisepilot eval")
    assert capsys.readouterr().err == ""
