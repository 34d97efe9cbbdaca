"""Official weights become policies: both kinds, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from noisepilot.experiments.cli import main
from noisepilot.policies import load_policy


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [("dppo", ["--kind", "diffusion"], 20), ("reinflow", ["--kind", "flow", "--policy.path.shown", "stretched"], 4)],
)
def test_official_weights(shared_data, tmp_path, name, kind, steps):
    weights = shared_data / "parity" / f"base_{name}_hopper.npz"
    limits = shared_data / "parity" / "base_hopper_normalization.npz"
    out = tmp_path / "policy"
    files = ["--weights", str(weights), "--normalization", str(limits), "--out", str(out)]
    assert main(["import", "hopper", *kind, *files]) == 0
    policy = load_policy(out, "cpu")
    assert policy.config.sampler.steps == steps
    assert policy.spec.env == "Hopper-v5"
    theirs = np.load(weights)["ema/network.mlp_mean.layers.0.weight"]
    assert (policy.network.trunk[0].weight.detach().numpy() == theirs).all()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["hopper", "--weights", "w.npz"], "--normalization is missing"),
        (["hopper", "--kind", "flw"], "kind of policy"),
        (["default", "--weights", "w", "--normalization", "n", "--out", "o"], "needs a recipe with an environment"),
        (["hopper", "--weights", "w.npz", "--normalization", "n.npz", "--out", "o"], "w.npz is not a readable"),
    ],
)
def test_bad_input(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", *argv]) == 2
    assert words in capsys.readouterr().err
    assert not Path("o").exists()
