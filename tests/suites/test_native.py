"""A policy compiled by torch: slow to write, the same actions, and played only by who says that it is trusted."""

import shutil

import numpy as np
import pytest

from noisepilot.deploy import native
from noisepilot.deploy.export import export
from noisepilot.errors import UserError
from noisepilot.experiments import deploy_verbs
from noisepilot.policies import save_policy
from noisepilot.spec import ArraySpec

from ..deploy.test_export import difference
from ..deploy.test_prefix import knowing
from ..deploy.toys import make_policy

ENV = "InvertedPendulum-v5"
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def test_parity(tmp_path):
    policy = make_policy("ddim5")
    exported = native.load(export(policy, tmp_path / "p.pt2", provenance={}), trust=True)
    for batch in (1, 3):
        assert difference(policy, exported, batch) < 1e-5
    assert exported.verify().holds
    assert exported.metadata["parity"]["observations"] == 256
    content = (tmp_path / "p.pt2").read_bytes()
    (tmp_path / "half.pt2").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half.pt2 was not written by .* or is damaged"):
        native.load(tmp_path / "half.pt2", trust=True)


def test_committed_actions(tmp_path):
    exported = native.load(export(knowing("flow1"), tmp_path / "p.pt2", provenance={}), trust=True)
    assert exported.spec.max_prefix == 2
    assert exported.verify().holds  # the certificate was made with prefixes of all lengths
    obs = {name: np.zeros(array["shape"]) for name, array in exported.spec.observations.items()}
    committed = np.array([[0.1, 0.2]], np.float32)
    assert np.abs(exported.act(obs, prefix=committed)[:1] - committed).max() < 1e-5


def test_verbs(tmp_path, capsys):
    policy = make_policy("flow1", {"state": ArraySpec((4,))}, ArraySpec((1,)))
    save_policy(policy, tmp_path / "policy", {})
    out = tmp_path / "policy.pt2"
    assert deploy_verbs.export([str(tmp_path / "policy"), "--out", str(out)]) == 0
    assert "AOTInductor of torch" in capsys.readouterr().out
    words = [str(out), "--env", ENV, "--hz", "500", "--steps", "6"]
    with pytest.raises(UserError, match=r"runs code of whoever wrote it, with your rights: say --trust"):
        deploy_verbs.run(words)
    assert deploy_verbs.run([*words, "--trust"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("inference ms")
