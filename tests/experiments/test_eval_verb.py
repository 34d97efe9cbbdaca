"""`noisepilot eval`: the same seeds give the same episodes; without a simulator, errors on data."""

import json

import pytest

from noisepilot.experiments.cli import main
from noisepilot.experiments.run_folder import RunFolder

from .runs import pretrained, write_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("run"))


def ledger(path):
    return json.loads(path.read_text()) | {"wall_s": 0}


def test_twice_the_same(run, tmp_path, capsys):
    for name in ("a", "b"):
        assert main(["eval", run, "--episodes", "3", "--out", str(tmp_path / name)]) == 0
    assert ledger(tmp_path / "a") == ledger(tmp_path / "b")
    assert main(["eval", run, "--episodes", "5", "--out", str(tmp_path / "c")]) == 0
    assert ledger(tmp_path / "c")["seed"] == [0, 1, 2, 3, 4]
    assert "Hopper-v5" in capsys.readouterr().out


def test_default_place_and_json(run, capsys):
    assert main(["eval", run, "--episodes", "2", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["env"], summary["episodes"]) == ("Hopper-v5", 2)
    assert summary["return"]["mean"] == RunFolder(run).ledgers()["final"].returns.mean()


def test_keywords_without_an_id_are_the_runs_environments(run, tmp_path, capsys):
    argv = ["eval", run, "--episodes", "1", "--out", str(tmp_path / "short")]
    assert main([*argv, "--env-kwargs", '{"max_episode_steps": 3}']) == 0
    assert ledger(tmp_path / "short")["length"] == [3]
    assert main([*argv, "--env-kwargs", '{"gravity": 3}']) == 2
    assert "unknown keyword of Hopper-v5 'gravity'" in capsys.readouterr().err


def test_on_data(run, tmp_path, capsys):
    demos = write_data(tmp_path / "demos.npz")
    assert main(["eval", run, "--data", demos]) == 0
    table = capsys.readouterr().out
    assert "normalised" in table
    assert "thigh_joint" in table
    assert main(["eval", run, "--data", demos, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["windows"] == 120
    assert (len(found["absolute"]), len(found["absolute"][0])) == (4, 3)


def test_a_policy_of_no_environment(tmp_path, capsys):
    run = pretrained(tmp_path, "default")
    assert main(["eval", run, "--episodes", "1"]) == 2
    assert "names an environment: give --env" in capsys.readouterr().err
    assert main(["eval", run, "--episodes", "1", "--env", "Hopper-v5"]) == 0
