"""Files whose weights have fewer bits: smaller, exactly the rounded policy, and honest about what rounding moved."""

import dataclasses

import numpy as np
import pytest
import torch

from noisepilot.deploy.export import export
from noisepilot.deploy.rounding import rounded
from noisepilot.deploy.runtime import Policy
from noisepilot.errors import UserError
from noisepilot.experiments import deploy_verbs
from noisepilot.policies import MLP, UNet, save_policy

from .toys import CONFIGS, draw_obs, make_policy

SMALLER = {"float16": 2, "bfloat16": 2, "int8": 4}


def wide(**changes):
    """Weights enough to be most of the file."""
    config = dataclasses.replace(CONFIGS["flow1"], network=MLP(hidden=(256, 256, 256), time_dim=8), **changes)
    base = make_policy("flow1")
    policy = config.build(base.spec).eval()
    policy.normalizer.load_state_dict(base.normalizer.state_dict())
    return policy


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    whole = {"float32": export(wide(), folder / "whole.npz", provenance={})}
    return whole | {p: export(wide(), folder / f"{p}.onnx", provenance={}, precision=p) for p in SMALLER}


@pytest.mark.parametrize("precision", SMALLER)
def test_smaller_and_certified(files, precision):
    path, whole = files[precision], files["float32"]
    weights = 4 * 2 * 256 * 256
    saved = whole.stat().st_size - path.stat().st_size
    assert saved > 0.9 * weights * (1 - 1 / SMALLER[precision])
    exported = Policy.load(path)
    parity = exported.metadata["parity"]
    assert exported.metadata["precision"] == precision
    assert parity["max_relative_difference"] < 1e-5
    assert exported.verify().holds
    moved = parity["rounding"]
    assert 1e-6 < moved["mean_relative_difference"] < moved["max_relative_difference"] < 0.1
    assert "rounding" not in Policy.load(whole).metadata["parity"]


@pytest.mark.parametrize("precision", SMALLER)
def test_openvino_plays_it_exactly(files, precision):
    pytest.importorskip("openvino", reason="pip install openvino")
    found = Policy.load(files[precision], "openvino").verify()
    assert found.holds, found


def test_the_smaller_the_coarser(files):
    moved = {p: Policy.load(files[p]).metadata["parity"]["rounding"]["mean_relative_difference"] for p in SMALLER}
    assert moved["float16"] < moved["bfloat16"] < moved["int8"]


def test_a_unet_in_int8(tmp_path):
    """Kernels of both directions, whose channels lie on different axes."""
    network = UNet((8, 16), time_dim=8, groups=4)
    config = dataclasses.replace(CONFIGS["flow1"], network=network)
    base = make_policy("flow1")
    policy = config.build(dataclasses.replace(base.spec, horizon=4)).eval()
    policy.normalizer.load_state_dict(base.normalizer.state_dict())
    exported = Policy.load(export(policy, tmp_path / "p.onnx", provenance={}, precision="int8"))
    obs, noise = draw_obs(policy, 3), policy.noise(3)
    ours = rounded(policy, "int8").act(obs, noise).numpy()
    theirs = exported.act({name: value.numpy() for name, value in obs.items()}, noise.numpy())
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@torch.no_grad()
def test_rounding():
    policy = wide()
    weight = policy.network.trunk[1].l1.weight
    weight[3] = 0
    kept = weight.clone()
    ours = rounded(policy, "int8").network.trunk[1].l1.weight
    steps = weight.abs().amax(1, keepdim=True) / 127
    assert ((ours - weight).abs() <= 0.51 * steps).all()
    assert torch.equal(ours[3], weight[3])
    assert torch.equal(weight, kept)
    names = dict(policy.named_parameters())
    for name, value in rounded(policy, "float16").named_parameters():
        assert torch.equal(value, names[name]) == ("bias" in name or "time_embedding" in name), name
    weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"trunk.1.l1.weight is not finite in float16: export with another --precision"):
        rounded(policy, "float16")


def test_verb_says_size_and_difference(tmp_path, capsys):
    save_policy(make_policy("flow1"), tmp_path / "policy", {})
    out = tmp_path / "small.onnx"
    assert deploy_verbs.export([str(tmp_path / "policy"), "--out", str(out), "--precision", "int8"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: {out.stat().st_size / 1000:.0f} kB, onnxruntime" in said
    assert "rounding the weights before moved actions by" in said
    with pytest.raises(
        UserError, match=r"^a \.npz file has weights in float32: .* ends in \.onnx or \.c for bfloat16$"
    ):
        deploy_verbs.export([str(tmp_path / "policy"), "--out", str(tmp_path / "p.npz"), "--precision", "bfloat16"])
