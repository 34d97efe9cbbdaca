import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from noisepilot import config as config_module
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.spec import ArraySpec

from .toys import Line, Pusher

CONFIG = ArraySpec((3,), names=("x", "y", "z"))  # any dataclass of the package


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "a", CONFIG, data_hash="abc")


def test_create_and_open(run, tmp_path):
    again = RunFolder.open(run.path)
    assert again.config == CONFIG
    facts = again.facts
    assert facts["data_hash"] == "abc"
    assert facts["versions"]["torch"] == torch.__version__
    assert str(tmp_path) not in (run.path / "config.json").read_text()


def test_existing_folders_are_kept(run, tmp_path):
    with pytest.raises(UserError, match="--resume"):
        RunFolder.create(run.path, CONFIG)
    with pytest.raises(UserError, match="no run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", CONFIG)


def test_metrics_are_plain_json(run):
    assert run.metrics() == []
    run.log({"env_steps": np.int64(3), "time/fps": torch.tensor(2.5), "train/loss": float("nan"), "name": "x"})
    assert run.metrics() == [{"env_steps": 3, "time/fps": 2.5, "train/loss": None, "name": "x"}]


def test_truncation_for_resume(run):
    for step in range(0, 50, 10):
        run.log({"env_steps": step, "value": step})
    with run.metrics_path.open("a") as file:
        file.write('{"env_steps": 5')  # killed while writing
    assert len(run.metrics()) == 5
    run.truncate_metrics(20)
    assert [row["value"] for row in run.metrics()] == [0, 10, 20]
    run.log({"env_steps": 30, "value": -1})
    assert [row["value"] for row in run.metrics()] == [0, 10, 20, -1]
    run.truncate_metrics(-1)
    assert run.metrics() == []


def test_checkpoints(run):
    assert run.latest_checkpoint() is None
    for step in (5, 100, 20):
        run.checkpoint_path(step).mkdir(parents=True)
    (run.path / "checkpoints" / ".000000900.abcd.tmp").mkdir()  # one that was being written
    assert [int(p.name) for p in run.checkpoints()] == [5, 20, 100]
    assert run.latest_checkpoint() == run.checkpoint_path(100)


def test_ledgers(run):
    assert run.ledgers() == {}
    ledger = evaluate(Pusher(), Line(4), range(8))
    ledger.save(run.eval_path("base"))
    (name, again), *rest = run.ledgers().items()
    assert (name, rest) == ("base", [])
    assert again.summary() == ledger.summary()


def test_config_of_another_version(run):
    facts = json.loads((run.path / "config.json").read_text())
    facts["config"]["colour"] = "red"
    (run.path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="does not fit"):
        _ = run.config


def test_configs_outside_the_package_are_written_too(tmp_path):
    @dataclass(frozen=True)
    class Foreign:
        lr: float = 0.1

    assert RunFolder.create(tmp_path / "b", Foreign()).facts["config"] == config_module.to_dict(Foreign())
