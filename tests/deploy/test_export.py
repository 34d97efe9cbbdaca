"""The exported file is the policy: same numbers, its whole specification, refusal where that cannot be."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from noisepilot.deploy import parity
from noisepilot.deploy.export import export
from noisepilot.deploy.graph import exportable
from noisepilot.deploy.runtime import Policy as Exported
from noisepilot.deploy.runtime import PolicyError
from noisepilot.errors import UserError
from noisepilot.policies import UNet
from noisepilot.policies.best_of import BestOfConfig
from noisepilot.policies.gaussian import GaussianConfig, GaussianMLP
from noisepilot.policies.noise_space import NoiseSpace
from noisepilot.policies.residual import ResidualConfig
from noisepilot.policies.steered import SteeredConfig

from .toys import CONFIGS, draw_obs, make_policy

PROVENANCE = {"git": "abc", "versions": {"torch": "2"}, "data_hash": "d", "parent": "p"}
CASES = [(name, suffix) for name in CONFIGS for suffix in ("onnx", "npz")]


def difference(policy, exported, batch):
    obs, noise = draw_obs(policy, batch), policy.noise(batch, torch.Generator().manual_seed(2))
    theirs = exported.act({k: v.numpy() for k, v in obs.items()}, noise.numpy())
    ours = policy.act(obs, noise).numpy()
    assert theirs.shape == ours.shape == (batch, policy.spec.horizon, policy.spec.action.dim)
    assert theirs.dtype == np.float32
    return np.abs(theirs - ours).max()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every policy in both formats, written once."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        (name, suffix): export(make_policy(name), folder / f"{name}.{suffix}", provenance=PROVENANCE)
        for name, suffix in CASES
    }


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_parity(files, name, suffix):
    policy, exported = make_policy(name), Exported.load(files[name, suffix])
    for batch in (1, 7):
        assert difference(policy, exported, batch) < 1e-5


@pytest.mark.parametrize("suffix", ["onnx", "npz"])
def test_parity_with_frozen_prefix(tmp_path, suffix):
    base = make_policy("history")
    policy = base.split(2)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    exported = Exported.load(export(policy, tmp_path / f"tuned.{suffix}", provenance=PROVENANCE))
    for batch in (1, 7):
        assert difference(policy, exported, batch) < 1e-5
    assert difference(base, exported, 7) > 1e-3


def test_parity_of_a_unet(tmp_path):
    """One frozen and one tuned step with local observations; `bench unet` has another, which is tested there."""
    network = UNet((8, 16), time_dim=8, groups=4, local=True)
    sampler = dataclasses.replace(CONFIGS["ddim5"].sampler, steps=2)
    config = dataclasses.replace(CONFIGS["ddim5"], network=network, sampler=sampler, n_obs_steps=2)
    base = make_policy("history")
    policy = config.build(dataclasses.replace(base.spec, horizon=4, n_obs_steps=2, n_action_steps=3))
    policy.normalizer.load_state_dict(base.normalizer.state_dict())
    policy = policy.eval().split(1)
    with torch.no_grad():
        policy.network.out.bias += 0.1
    exported = Exported.load(export(policy, tmp_path / "unet.onnx", provenance={}))
    for batch in (1, 7):
        assert difference(policy, exported, batch) < 1e-5
    with pytest.raises(UserError, match=r"past_actions or max_prefix only: export to a path that ends in \.onnx"):
        export(policy, tmp_path / "unet.npz", provenance={})


@pytest.mark.parametrize("sample", [True, False])
@pytest.mark.parametrize(("base", "kind"), [("condition", "full"), ("history", "low_rank"), ("flow1", "repeat")])
def test_parity_of_a_steered_policy(tmp_path, base, kind, sample):
    inside = make_policy(base)
    config = SteeredConfig(inside.config, GaussianMLP((16, 16)), NoiseSpace(kind, bound=1.5), sample)
    actor = config.build(inside.spec, inside).eval()
    exported = Exported.load(export(actor, tmp_path / "steered.onnx", provenance=PROVENANCE))
    assert exported.spec.noise_shape == actor.noise_shape
    for batch in (1, 7):
        assert difference(actor, exported, batch) < 1e-5
    assert exported.metadata["policy"]["base"]["sampler"]["steps"] == inside.config.sampler.steps
    with pytest.raises(UserError, match=r"plain MLP policies only: export to a path that ends in \.onnx"):
        export(actor, tmp_path / "steered.npz", provenance={})


@pytest.mark.parametrize("sample", [True, False])
def test_parity_of_a_gaussian_actor(tmp_path, sample):
    inside = make_policy("history")
    actor = GaussianConfig(GaussianMLP((16, 16)), sample).build(inside.spec)
    actor.normalizer.load_state_dict(inside.normalizer.state_dict())
    exported = Exported.load(export(actor.eval(), tmp_path / "sac.onnx", provenance={}))
    for batch in (1, 7):
        assert difference(actor, exported, batch) < 1e-5


def test_refuses_actors_that_remember_or_choose():
    inside = make_policy("flow1")
    residual = ResidualConfig(inside.config).build(inside.spec, inside)
    with pytest.raises(UserError, match=r"^run holds a Residual, which corrects every step .* export the policy"):
        exportable(residual, "run")
    best = BestOfConfig(inside.config).build(inside.spec)
    with pytest.raises(UserError, match=r"^run holds a BestOf, which chooses .* from Python \(`load_policy`\)$"):
        exportable(best, "run")


def test_single_observation_is_a_batch_of_one(files):
    policy, exported = make_policy("history"), Exported.load(files["history", "onnx"])
    obs, noise = draw_obs(policy, 1), policy.noise(1)
    chunk = exported.act({k: v[0].numpy() for k, v in obs.items()}, noise[0].numpy())
    assert chunk.shape == (6, 2)
    np.testing.assert_array_equal(chunk, exported.act({k: v.numpy() for k, v in obs.items()}, noise.numpy())[0])


@pytest.mark.parametrize("suffix", ["onnx", "npz"])
def test_metadata(files, suffix):
    policy, exported = make_policy("history"), Exported.load(files["history", suffix])
    spec, config = exported.spec, policy.config
    assert (spec.horizon, spec.n_action_steps, spec.n_obs_steps, spec.control_hz) == (6, 3, 3, 20.0)
    assert spec.noise_shape == policy.noise_shape == (4, 6, 2)
    assert spec.env == "Toy"
    assert spec.observations["state"]["shape"] == (3, 4)
    assert spec.observations["state"]["names"] == ["x", "y", "vx", "vy"]
    assert spec.observations["goal"]["low"] == [-3.0, None]
    assert spec.observations["goal"]["seen_low"] == [-0.5, 0.5]
    assert spec.observations["goal"]["seen_high"] == [1.5, 0.5]
    assert spec.action["shape"] == (6, 2)
    assert spec.action["unit"] == "N"
    assert exported.metadata["policy"]["sampler"]["steps"] == config.sampler.steps
    assert exported.metadata["provenance"] == PROVENANCE
    assert exported.metadata["evaluation"] is None


def test_certificate_of_drawn_observations(files):
    certificate = Exported.load(files["ddpm20", "onnx"]).metadata["parity"]
    assert certificate["source"].startswith("drawn")
    assert certificate["observations"] == parity.MOST
    assert 0 < certificate["max_relative_difference"] < 1e-5
    assert certificate["tolerance"] == 1e-4
    assert certificate["backend"].startswith("onnxruntime 1.")


def test_certificate_of_recorded_observations_and_evaluation(tmp_path):
    policy = make_policy("flow1")
    evaluation = {"episodes": 10, "return": math.inf}
    path = export(policy, tmp_path / "p.npz", observations=draw_obs(policy, 9), provenance={}, evaluation=evaluation)
    metadata = Exported.load(path).metadata
    assert (metadata["parity"]["source"], metadata["parity"]["observations"]) == ("recorded", 9)
    assert metadata["evaluation"] == {"episodes": 10, "return": None}


def test_a_double_policy_is_exported_as_float32(tmp_path):
    policy = make_policy("ddim5").double()
    exported = Exported.load(export(policy, tmp_path / "p.npz", provenance={}))
    assert policy.dtype == torch.float64
    assert difference(make_policy("ddim5"), exported, 3) < 1e-5


def test_refuses_a_difference_and_leaves_no_file(tmp_path, monkeypatch):
    true_act = Exported.act
    monkeypatch.setattr(Exported, "act", lambda *a, **k: true_act(*a, **k) + 1e-3)
    with pytest.raises(UserError, match="differs from torch"):
        export(make_policy("flow1"), tmp_path / "p.npz", provenance={})
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_is_not_a_number(tmp_path):
    policy = make_policy("flow1")
    with torch.no_grad():
        next(iter(policy.network.parameters())).fill_(torch.nan)
    with pytest.raises(UserError, match="differs from torch by nan"):
        export(policy, tmp_path / "p.npz", provenance={})
    policy, obs = make_policy("flow1"), draw_obs(make_policy("flow1"), 2)
    obs["state"][1, 0, 2] = torch.nan
    with pytest.raises(UserError, match="refuses the recorded data: observation 'state' is not finite"):
        export(policy, tmp_path / "p.npz", observations=obs, provenance={})


def test_refuses_unknown_suffix_and_unfitted_policy(tmp_path):
    policy = make_policy("flow1")
    with pytest.raises(UserError, match=r"must end in \.onnx or \.npz"):
        export(policy, tmp_path / "p.pt", provenance={})
    unfitted = type(policy)(policy.config, policy.spec)
    with pytest.raises(UserError, match="normaliser"):
        export(unfitted, tmp_path / "p.npz", provenance={})


def test_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'noisepilot\[export\]'"):
        export(make_policy("flow1"), tmp_path / "p.onnx", provenance={})


def test_graph_is_plain_onnx_without_traces_of_its_machine(files):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(files["ddpm20", "onnx"])
    onnx.checker.check_model(model, full_check=True)
    inputs = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert inputs == {
        "observation.state": ["batch", 1, 4],
        "observation.goal": ["batch", 1, 2],
        "noise": ["batch", 21, 4, 2],
    }
    assert [v.name for v in model.graph.output] == ["action"]
    assert {n.op_type for n in model.graph.node}.isdisjoint({"Loop", "Sin", "Cos"})  # times are folded
    assert b".py" not in files["ddpm20", "onnx"].read_bytes()


# What the runtime refuses


@pytest.mark.parametrize("suffix", ["onnx", "npz"])
def test_wrong_observations(files, suffix):
    exported = Exported.load(files["history", suffix])
    good = {k: v[0].numpy() for k, v in draw_obs(make_policy("history"), 1).items()}
    bad = good["state"].copy()
    bad[1, 2] = np.inf
    for change, message in (
        (
            {"state": good["state"][:2]},
            r"observation 'state' has shape \(2, 4\), expected \(3, 4\) or \(B, 3, 4\)",
        ),
        ({"state": bad}, r"observation 'state' is not finite: inf at \(1, 2\)"),
        ({"state": "far"}, "observation 'state' is not an array of numbers"),
        ({"state": good["state"][None]}, "differ in batch size"),
    ):
        with pytest.raises(PolicyError, match=message):
            exported.act({**good, **change})
    with pytest.raises(PolicyError, match="observation 'goal' is missing"):
        exported.act({"state": good["state"]})
    with pytest.raises(PolicyError, match=r"noise has shape \(2, 6, 2\), expected \(4, 6, 2\)"):
        exported.act(good, np.zeros((2, 6, 2)))


def test_noise_is_drawn_from_the_generator(files):
    exported = Exported.load(files["ddim5", "onnx"])
    obs = {k: v[0].numpy() for k, v in draw_obs(make_policy("ddim5"), 1).items()}
    first, again, other = (exported.act(obs, generator=np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(exported.act(obs) - exported.act(obs)).max() > 1e-4


@pytest.mark.parametrize("suffix", ["onnx", "npz"])
def test_corrupt_files(files, tmp_path, suffix):
    content = files["ddim5", suffix].read_bytes()
    for name, part in (
        ("half", content[: len(content) // 2]),
        ("empty", b""),
        ("noise", b"PK\x03\x04 nothing"),
    ):
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(part)
        with pytest.raises(PolicyError, match=f"{name}.{suffix} .*(not a readable|not written by)") as error:
            Exported.load(path)
        assert "\n" not in str(error.value)


def test_foreign_files(files, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(files["ddim5", "onnx"])
    text = model.metadata_props[0].value
    for change, message in (
        (None, "was not written by `noisepilot export`"),
        ("[1]", "was not written by `noisepilot export`"),
        ("{", "metadata that is not JSON"),
        (json.dumps({**json.loads(text), "schema": 99}), "has schema 99.*update the runtime"),
        (json.dumps({"schema": 1}), "incomplete metadata"),
    ):
        del model.metadata_props[:]
        if change is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = "noisepilot", change
        path = tmp_path / "foreign.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(PolicyError, match=message):
            Exported.load(path)
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    with pytest.raises(PolicyError, match="not written by"):
        Exported.load(tmp_path / "foreign.npz")
    with pytest.raises(PolicyError, match="is a folder: give a file that `noisepilot export` wrote of it"):
        Exported.load(tmp_path)
    with pytest.raises(PolicyError, match="cannot read"):
        Exported.load(tmp_path / "absent.onnx")


def test_spec_is_frozen(files):
    exported = Exported.load(files["flow1", "npz"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        exported.spec.horizon = 1  # pyright: ignore[reportAttributeAccessIssue]
