"""The verb `list`."""

import json

import pytest

from noisepilot.errors import UserError
from noisepilot.experiments import list_verb
from noisepilot.experiments.list_verb import list_all


@pytest.fixture(autouse=True)
def no_foreign_packages(monkeypatch):
    """Packages that register environments may warn while they do."""
    monkeypatch.setattr("noisepilot.envs.foreign.register_installed", lambda: None)


def test_everything(capsys):
    assert list_all(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(list_verb.KINDS)
    recipes = {row["recipe"]: row for row in found["recipes"]}
    assert recipes["hopper"]["env"] == "Hopper-v5"
    assert "dppo" in recipes["hopper"]["algos"].split(", ")
    backends = {row["env"]: row["backend"] for row in found["envs"]}
    assert backends["Hopper-v5"] == "native"
    assert backends["HumanoidStandup-v5"] == "worker processes"
    assert {"bc", "distill", "dppo"} <= {row["algo"] for row in found["algos"]}
    assert all(row["what"] for row in found["algos"])


def test_one_kind_as_lines(capsys):
    assert list_all(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["recipe", "env", "algos"]
    assert any(line.startswith("hopper\tHopper-v5\t") for line in lines)


def test_an_unknown_kind():
    with pytest.raises(UserError, match="did you mean 'recipes'"):
        list_all(["recipe"])
