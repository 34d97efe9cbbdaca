"""An exported file says which trainings made it, back to the first, and under which licence it is."""

import json

import pytest

from noisepilot.deploy.runtime import Policy
from noisepilot.experiments.deploy_verbs import export
from noisepilot.experiments.distill import DistillRun
from noisepilot.experiments.lineage import parent, training, weights_hash
from noisepilot.experiments.pretrain import Pretrain
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies import save_policy
from noisepilot.policies.storage import find_policy

from ..deploy.toys import make_policy


@pytest.fixture
def runs(tmp_path):
    """A clone, and its student; the student's run names the clone's relative to where both lie."""
    clone = RunFolder.create(tmp_path / "clone", Pretrain(data="/home/me/demos.zarr", out="clone"), data_hash="d1")
    student = RunFolder.create(tmp_path / "student", DistillRun(policy="clone", out="student"), data_hash="d1")
    for run, name in ((clone, "ddim5"), (student, "flow1")):
        save_policy(make_policy(name), run.checkpoint_path(10) / "policy", {})
    return clone, student


def test_a_file_knows_its_ancestors(runs, tmp_path):
    clone, student = runs
    out = tmp_path / "policy.npz"
    assert export([str(student.path), "--out", str(out), "--licence", "CC-BY-4.0"]) == 0
    metadata = Policy.load(out).metadata
    assert metadata["licence"] == "CC-BY-4.0"
    assert metadata["training"]["method"] == "distill"
    assert metadata["training"]["data_hash"] == "d1"
    before = metadata["parent"]
    assert (before["name"], before["training"]["method"], before["parent"]) == ("clone", "pretrain", None)
    assert before["weights_sha256"] == weights_hash(find_policy(clone.path))
    assert before["training"]["config"]["data"] == "demos.zarr"
    assert before["training"]["config"]["bc"]["grad_steps"] > 0
    assert "/home/me" not in json.dumps(metadata)


def test_what_is_not_known_is_left_out(runs, tmp_path):
    clone, student = runs
    clone.path.rename(tmp_path / "moved")
    assert parent(find_policy(student.path)) == {"name": "clone"}
    bare = save_policy(make_policy("flow1"), tmp_path / "policy", {})
    assert training(bare) is None
    assert parent(bare) is None
