"""The certificate's examples are made again from the file alone, and a difference is seen."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from noisepilot.deploy.export import export
from noisepilot.deploy.runtime import Policy, PolicyError, RemotePolicy, verify
from noisepilot.deploy.runtime.__main__ import main
from noisepilot.deploy.server import serving
from noisepilot.policies import Sampler
from noisepilot.policies.vision import ViT
from noisepilot.spec import ArraySpec

from .toys import ACTION, CONFIGS, make_policy

EYE = {"images.eye": ArraySpec((16, 16, 3)), "state": ArraySpec((2,))}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return export(make_policy("ddim5"), tmp_path_factory.mktemp("exported") / "policy.npz", provenance={})


def test_examples_hold_in_both_formats(path, tmp_path):
    for file in (path, export(make_policy("history"), tmp_path / "policy.onnx", provenance={})):
        found = Policy.load(file).verify()
        assert found.holds
        assert 0 < found.max_relative_difference < 1e-5
        assert (found.examples, found.tolerance) == (8, 1e-4)
        assert found.backend == Policy.load(file).metadata["parity"]["backend"]


def test_examples_are_what_torch_does(path):
    policy, exported = make_policy("ddim5"), Policy.load(path)
    examples = exported.metadata["parity"]["examples"]
    noise, _ = verify.draw(exported.spec, 8, examples["seed"])
    obs = {
        name: torch.tensor(verify.read(text, (8, *exported.spec.observations[name]["shape"])))
        for name, text in examples["observations"].items()
    }
    ours = policy.act(obs, torch.from_numpy(noise)).numpy()
    np.testing.assert_allclose(verify.read(examples["action"], ours.shape), ours, atol=1e-6)


def test_the_generator_is_the_frozen_one():
    """Other numbers here would make every file's certificate fail."""
    spec = replace(Policy(lambda _: np.zeros(0), METADATA).spec, noise_shape=(1, 1, 2))
    noise, pictures = verify.draw(spec, 1, 0)
    np.testing.assert_array_equal(noise.ravel(), np.float32([1.764052345967664, 0.4001572083672233]))
    assert pictures["images.eye"].ravel().tolist() == [67, 179, 78, 154]


METADATA = {
    "schema": 1,
    "observations": {"images.eye": {"shape": [1, 2, 2, 1], "dtype": "uint8"}},
    "action": {"shape": [1, 2]},
    "noise_shape": [1, 1, 2],
    **{"control_hz": 1, "horizon": 1, "n_action_steps": 1, "n_obs_steps": 1, "env": ""},
}


def test_pictures_are_drawn_not_stored(tmp_path):
    eyes = ViT("separate", width=16, heads=2, features=8)
    config = replace(CONFIGS["ddim5"], sampler=Sampler(2, eta=0.0), encoder=eyes)
    policy = config.build(config.spec(EYE, ACTION)).eval()
    policy.normalizer.set("state", np.zeros(2), np.ones(2))
    policy.normalizer.set("action", np.zeros(2), np.ones(2))
    exported = Policy.load(export(policy, tmp_path / "p.onnx", provenance={}))
    assert list(exported.metadata["parity"]["examples"]["observations"]) == ["state"]
    assert exported.verify().holds


def test_a_difference_is_seen(path, tmp_path, capsys):
    exported = Policy.load(path)
    moved = Policy(lambda feeds: exported.run(feeds) * 1.001, exported.metadata)
    found = moved.verify()
    assert not found.holds
    assert found.max_relative_difference < 0.01
    assert not Policy(lambda feeds: exported.run(feeds) * np.nan, exported.metadata).verify().holds
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["tuned.bias"][3] += 0.01
    np.savez(tmp_path / "changed.npz", **arrays)
    assert main(["check", str(tmp_path / "changed.npz")]) == 1
    assert "the certificate DOES NOT HOLD (tolerance 1e-04)" in capsys.readouterr().out


def test_a_server_is_checked_too(path):
    with serving(Policy.load(path)) as address:
        assert main(["check", address]) == 0
        with RemotePolicy(address) as remote:
            assert remote.verify().max_relative_difference == Policy.load(path).verify().max_relative_difference


def test_check_says_what_a_file_is(path, tmp_path, capsys):
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: {path.stat().st_size / 1000:.0f} kB, for Toy at 20 Hz"
    assert lines[1] == "  observation.state  float32 (1, 4)  m  x y vx vy"
    assert lines[-2].startswith("written: numpy ")
    assert lines[-2].endswith("over 256 observations (drawn within the normaliser's range)")
    assert lines[-1].endswith("over 8 examples; the certificate holds (tolerance 1e-04)")
    assert main(["check", str(tmp_path / "none.onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read")


def test_damaged_examples(path):
    exported = Policy.load(path)
    for key, value, message in (
        ("examples", None, "holds no examples to reproduce: export it again"),
        ("action", "AAAA", "examples in the policy's file are damaged"),
        ("action", "?", "examples in the policy's file are damaged"),
        ("count", 10**9, "are damaged .1000000000 of them"),
        ("seed", -1, "are damaged"),
        ("observations", {}, "holds no examples"),
    ):
        metadata = copy.deepcopy(exported.metadata)
        (metadata["parity"] if key == "examples" else metadata["parity"]["examples"])[key] = value
        with pytest.raises(PolicyError, match=message):
            Policy(exported.run, metadata).verify()
