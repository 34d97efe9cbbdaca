"""`data convert --to lerobot`, from any set and back."""

import numpy as np
import pytest

from noisepilot.datasets.readers import load
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data

from ..datasets import lerobot_files as files
from ..datasets.sets import make

pytest.importorskip("pyarrow", reason="pip install 'noisepilot[lerobot]'")
pytest.importorskip("av", reason="pip install 'noisepilot[lerobot]'")


def test_a_set_goes_there_and_back(tmp_path, capsys):
    make().write(tmp_path / "set")
    words = [str(tmp_path / "set"), str(tmp_path / "robot"), "--to", "lerobot", "--lerobot.task", "push"]
    assert data(["convert", *words]) == 0
    said = capsys.readouterr().out
    assert "robot: 3 episodes, 13 steps, LeRobot v3.0" in said
    assert "left out: what followed" in said
    assert data(["convert", str(tmp_path / "robot"), str(tmp_path / "back")]) == 0
    back, first = load(tmp_path / "back"), make()
    assert back.attrs["tasks"] == ["push"]
    assert not back.final
    assert back.data.keys() == first.data.keys()
    for key, value in first.data.items():
        np.testing.assert_array_equal(back.data[key], value)
    np.testing.assert_array_equal(back.ends, first.ends)


def test_pictures_go_there_and_back(tmp_path):
    sets = files.episodes()
    files.write_v2(tmp_path / "v2", sets)
    words = [str(tmp_path / "v2"), str(tmp_path / "v3"), "--to", "lerobot", "--lerobot.codec", "lossless"]
    assert data(["convert", *words]) == 0
    assert load(tmp_path / "v3").hash() == load(tmp_path / "v2").hash()
    assert data(["info", str(tmp_path / "v3")]) == 0
    assert data(["check", str(tmp_path / "v3")]) in (0, 1)


def test_fitting_goes_before_writing(tmp_path):
    env = ["--env", "PointMaze_Medium-v3"]
    collect = ["collect", *env, "--actor", "waypoint", "--episodes", "2", "--out", str(tmp_path / "set")]
    assert data(collect) == 0
    assert data(["convert", str(tmp_path / "set"), str(tmp_path / "robot"), "--to", "lerobot", *env]) == 0
    robot = load(tmp_path / "robot")
    assert robot.attrs["env"] == "PointMaze_Medium-v3"
    np.testing.assert_array_equal(robot.data["action"], load(tmp_path / "set").data["action"])


def test_a_set_without_a_rate_asks_for_one(tmp_path):
    first = make()
    np.savez(
        tmp_path / "plain.npz", action=first.data["action"], state=first.data["observation.state"], episode_ends=[13]
    )
    words = ["convert", str(tmp_path / "plain.npz"), str(tmp_path / "robot"), "--to", "lerobot"]
    with pytest.raises(UserError, match="names no rate"):
        data(words)
    assert not (tmp_path / "robot").exists()
    assert data([*words, "--lerobot.fps", "20"]) == 0
    assert load(tmp_path / "robot").attrs["fps"] == 20
