import json

import numpy as np
import pytest

from noisepilot.datasets import convert as converting
from noisepilot.datasets import zarr_layout
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.datasets.summary import summarise
from noisepilot.datasets.zarr_layout import ZarrLayout
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data

from .sets import make


@pytest.fixture
def path(tmp_path):
    make().write(tmp_path / "set")
    return str(tmp_path / "set")


def test_info_as_text_and_json(path, capsys):
    assert data(["info", path]) == 0
    text = capsys.readouterr().out
    assert "episodes      3\n" in text
    assert "observation.state  3      float32" in text
    assert data(["info", path, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["episodes"], facts["steps"], facts["env"]) == (3, 13, "Toy-v0")
    assert facts["hash"] == make().hash()
    assert facts["arrays"]["action"]["shape"] == "2"


def test_info_reads_a_large_set_in_blocks(tmp_path, monkeypatch):
    episodes = make((700, 300))
    episodes.write(tmp_path / "set")
    whole = summarise(tmp_path / "set")
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 64)
    monkeypatch.setattr(converting, "BLOCK_BYTES", 200)
    episodes.write(tmp_path / "small")
    monkeypatch.setattr(ZarrLayout, "whole", None)
    parts = summarise(tmp_path / "small")
    assert (parts["hash"], parts["mean_return"]) == (episodes.hash(), episodes.returns().mean())
    for key, facts in whole["arrays"].items():
        stats = episodes.stats(key)
        wanted = {"min": stats.min.min(), "mean": stats.mean.mean(), "std": stats.std.mean(), "max": stats.max.max()}
        for name, value in wanted.items():
            assert facts[name] == pytest.approx(value, abs=1e-12)
            assert parts["arrays"][key][name] == pytest.approx(value, abs=1e-12)


def test_check_exits_by_what_it_finds(path, tmp_path, capsys):
    assert data(["check", path]) == 0
    assert capsys.readouterr().out.endswith("0 errors, 1 warnings\n")
    base = make()
    action = base.data["action"].copy()
    action[0] = np.nan
    Episodes({**base.data, "action": action}, base.ends, base.attrs).write(tmp_path / "bad")
    with pytest.raises(UserError, match="'action' holds a NaN"):
        load(tmp_path / "bad")
    assert data(["check", str(tmp_path / "bad"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found[0]["level"] == "error"
    assert found[0]["key"] == "action"
    assert data(["info", str(tmp_path / "bad")]) == 0


def test_convert(path, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", states=np.ones((4, 2)), actions=np.ones((4, 1)), traj_lengths=[4])
    assert data(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b")]) == 0
    assert "b: 1 episodes, 4 steps, action, observation.state" in capsys.readouterr().out
    assert load(tmp_path / "b").num_steps == 4
    with pytest.raises(UserError, match="set exists already"):
        data(["convert", str(tmp_path / "a.npz"), path])


def test_collect_check_and_continue(tmp_path, capsys):
    out = str(tmp_path / "demos")
    arguments = ["collect", "InvertedPendulum-v5", "--actor", "random", "--out", out, "--slots", "3"]
    assert data([*arguments, "--episodes", "4"]) == 0
    assert "demos: 4 episodes, " in capsys.readouterr().out
    assert data([*arguments, "--episodes", "6"]) == 0
    assert len(load(out)) == 6
    assert data(["check", out, "--env", "InvertedPendulum-v5"]) == 0
    with pytest.raises(UserError, match="was begun with env 'InvertedPendulum-v5', not 'Hopper-v5'"):
        data(["collect", "Hopper-v5", *arguments[2:]])


def test_help_and_mistakes(capsys):
    assert data([]) == 0
    assert "collect" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown data verb 'chek': did you mean 'check'"):
        data(["chek"])
    with pytest.raises(UserError, match="is not a JSON object"):
        data(["collect", "Hopper-v5", "--actor", "random", "--out", "x", "--env-kwargs", "{a"])
    with pytest.raises(UserError, match="0 episodes in 16 slots: both must be at least 1"):
        data(["collect", "Hopper-v5", "--actor", "random", "--out", "x", "--episodes", "0"])


def test_waypoints_reach_their_goals_and_the_set_is_sound(tmp_path, capsys):
    out = str(tmp_path / "maze")
    kwargs = json.dumps({"continuing_task": False})
    env = ["PointMaze_UMaze-v3", "--env-kwargs", kwargs]
    arguments = ["collect", *env, "--actor", "waypoint", "--noise", "0.3", "--out", out, "--episodes", "12"]
    assert data(arguments) == 0
    assert "success 100.0 %" in capsys.readouterr().out
    episodes = load(out)
    assert episodes.attrs["env_kwargs"]["continuing_task"] is False
    assert episodes.data["next.terminated"][episodes.ends - 1].all()
    assert data(["check", out, "--env", *env]) == 0
    with pytest.raises(UserError, match="Hopper-v5 is no PointMaze"):
        data(["collect", "Hopper-v5", "--actor", "waypoint", "--out", out])
