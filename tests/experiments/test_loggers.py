import importlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest

from noisepilot.errors import UserError
from noisepilot.experiments import loggers
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.spec import ArraySpec

METRICS = {"env_steps": 200, "grad_steps": 7, "train/loss": 0.5, "eval/success_rate": None, "phase": "x"}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", ArraySpec((1,)))


def test_missing_packages_name_the_extra(run, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("tensorboard", "wandb"):
        with pytest.raises(UserError, match=rf"pip install 'noisepilot\[{name}\]'"):
            loggers.open_sinks([name], run)


def test_wandb_gets_numbers_and_the_step(run, monkeypatch):
    calls = []
    fake = SimpleNamespace(log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("end"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: calls.append(options) or fake))
    (sink,) = loggers.open_sinks(["wandb"], run)
    sink.log(METRICS)
    sink.close()
    assert calls[0]["name"] == "run"
    assert calls[0]["config"]["shape"] == [1]
    assert calls[1:] == [({"env_steps": 200, "grad_steps": 7, "train/loss": 0.5}, 200), "end"]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="extra 'tensorboard'")
def test_tensorboard_writes_events(run):
    (sink,) = loggers.open_sinks(["tensorboard"], run)
    sink.log(METRICS)
    sink.close()
    (events,) = (run.path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()
