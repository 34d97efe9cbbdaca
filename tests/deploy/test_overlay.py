"""An adapter on top of an exported file: trained, written, played, measured, taken off; and what is refused."""

import io
import json

import numpy as np
import pytest
import torch

from noisepilot.algos.black_box import Exported as Base
from noisepilot.algos.corrected import Corrected, deployed
from noisepilot.deploy.export import export
from noisepilot.deploy.overlay import export_overlay
from noisepilot.deploy.runtime import Overlay, Policy, PolicyError, run_loop
from noisepilot.errors import UserError
from noisepilot.experiments.deploy_verbs import export as export_verb
from noisepilot.experiments.deploy_verbs import run
from noisepilot.experiments.eval_verbs import evaluate
from noisepilot.experiments.serve_verb import serve
from noisepilot.experiments.train_verbs import finetune
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.policies.noise_space import NoiseSpace
from noisepilot.policies.normal import NormalMLP
from noisepilot.policies.residual import ResidualConfig
from noisepilot.policies.steered import SteeredConfig
from noisepilot.policies.storage import load_policy
from noisepilot.spec import ArraySpec

from .toys import Clock, Counter, Planner, draw_obs, make_policy

ENV = "InvertedPendulum-v5"
FULL, REPEAT, LOW = NoiseSpace("full", 1.5), NoiseSpace("repeat", 2.0), NoiseSpace("low_rank", 1.0, 2)
NOISE = {
    "full": (GaussianMLP((16, 16), "tanh", "before"), FULL, True),
    "repeat": (GaussianMLP((16,), "relu", "after"), REPEAT, True),
    "low_rank": (GaussianMLP((16, 8), "gelu"), LOW, False),
}
RESIDUAL = {
    "resip": (NormalMLP((16, 16), last_gain=1.0), 0.3, 1.5),
    "decorator": (GaussianMLP((16, 16)), 0.2, None),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The file of a policy whose normaliser moves, scales and has a constant dimension, and that sees two steps."""
    policy = make_policy("flow1")
    return export(policy, tmp_path_factory.mktemp("base") / "base.npz", provenance={"data_hash": "demos"})


def steered(base, name):
    torch.manual_seed(1)
    steer, space, sample = NOISE[name]
    return SteeredConfig(None, steer, space, sample).build(base.spec, base).eval()


def corrected(base, name):
    torch.manual_seed(1)
    return ResidualConfig(None, *RESIDUAL[name]).build(base.spec, base).eval()


@pytest.mark.parametrize("name", NOISE)
def test_a_noise_overlay_plays_like_the_steered_policy(tmp_path, base, name):
    actor = steered(Base(base), name)
    path = export_overlay(actor, tmp_path / "a.overlay", Policy.load(base), provenance={"git": "abc"})
    played = Policy.load(base, overlay=path)
    assert played.spec.noise_shape == actor.noise_shape
    obs, noise = draw_obs(actor, 7), torch.randn(7, *actor.noise_shape)
    arrays = {k: v.numpy() for k, v in obs.items()}
    ours = actor.act(obs, noise).numpy()
    assert np.abs(played.act(arrays, noise.numpy()) - ours).max() < 1e-5
    one = played.act({k: v[3] for k, v in arrays.items()}, noise[3].numpy())
    assert np.abs(one - ours[3]).max() < 1e-5
    assert np.abs(Policy.load(base).act(arrays, np.zeros((7, 1, 4, 2))) - ours).max() > 1e-3  # without: the base alone
    facts = played.metadata["overlay"]
    assert facts["parity"]["max_relative_difference"] < 1e-5
    assert (facts["provenance"], facts["schema"]) == ({"git": "abc"}, 1)
    assert len({played.digest, Policy.load(base).digest, facts["digest"]}) == 3


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_overlay_plays_like_the_corrected_policy(tmp_path, base, name):
    actor = corrected(Base(base), name)
    path = export_overlay(actor, tmp_path / "a.overlay", Policy.load(base), provenance={})
    played = deployed(str(base), overlay=path)
    assert isinstance(played, Corrected)
    generator, moved = torch.Generator().manual_seed(5), 0.0
    for step in range(6):  # a chunk and a half; one row starts anew in the middle of its chunk
        obs, noise = draw_obs(actor, 3), torch.randn(3, *actor.noise_shape, generator=generator)
        obs = {k: v + 0.1 * step for k, v in obs.items()}
        if step == 2:
            actor.reset([1])
            played.reset([1])
        ours = actor.act(obs, noise).numpy()
        assert np.abs(played.act(obs, noise).numpy() - ours).max() < 1e-5
        moved = max(
            moved, np.abs(actor.playback.chunk[0, int(actor.playback.position[0]) - 1].numpy() - ours[0, 0]).max()
        )
    assert moved > 1e-2
    player = played.base.player
    first = {k: v[0].numpy() for k, v in obs.items()}
    assert np.isnan(player.correct(first, [np.nan, 0.0])[0])  # held by the loop, or refused by the gate
    with pytest.raises(PolicyError, match=r"the action has shape \(3,\), expected \(2,\)"):
        player.correct(first, np.zeros(3))
    with pytest.raises(PolicyError, match="'state' is not finite"):
        player.correct({**first, "state": np.full((1, 4), np.nan)}, np.zeros(2))


class Shifting(Policy):
    """Adds the newest observation to each action."""

    corrects = True

    def correct(self, obs, action):
        return action + 100 * obs["state"][-1]


def test_the_loop_corrects_each_action_with_the_newest_observation_before_the_gate():
    from noisepilot.deploy.runtime import Gate, Limits

    plain = Planner(n_obs_steps=2).policy()
    policy = Shifting(plain.run, plain.metadata)
    env, clock = Counter(5), Clock()
    run_loop(policy, env, hz=10.0, clock=clock, sleep=clock.spend)
    assert env.actions == [0, 101, 202, 303, 404]
    plain = Planner(n_obs_steps=2).policy()
    policy = Shifting(plain.run, plain.metadata)
    env, gate = Counter(5), Gate(Limits([-9.0], [150.0]), 10.0)
    run_loop(policy, env, hz=10.0, clock=clock, sleep=clock.spend, gate=gate)
    assert env.actions[1:] == [101, 150, 150, 150]
    assert gate.counts == {"position": 3}


# At the command line


SMALL = ["--budget.num-envs", "2", "--budget.iterations", "1", "--budget.eval-episodes", "2", "--env", ENV]
OFF = ["--algo.warmup", "8", "--algo.batch", "16", "--algo.utd", "0.5", "--budget.decisions", "30"]
METHODS = {
    "dsrl-sac": [*OFF, "--algo.space.kind", "repeat"],
    "dsrl-na": OFF,
    "residual": [*OFF, "--algo.explore-steps", "10"],
    "resip": ["--budget.decisions", "30", "--algo.epochs", "3"],
}


def in_pendulum(name):
    return make_policy(name, {"state": ArraySpec((4,))}, ArraySpec((1,)))


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    return export(
        in_pendulum("flow1"), tmp_path_factory.mktemp("pendulum") / "policy.onnx", provenance={"data_hash": "demos"}
    )


@pytest.mark.parametrize("algo", METHODS)
def test_from_a_file_to_its_overlay(tmp_path, pendulum, algo, capsys):
    words = ["--algo", algo, "--policy", str(pendulum), "--out", str(tmp_path / "run"), *SMALL, *METHODS[algo]]
    assert finetune(words) == 0
    facts = json.loads(next((tmp_path / "run").glob("checkpoints/*/policy/config.json")).read_text())
    assert facts["config"]["base"] == {
        "type": "algos.black_box:BaseFile",
        "where": str(pendulum),
        "digest": Policy.load(pendulum).digest,
    }
    assert facts["provenance"]["data_hash"] == "demos"
    actor = load_policy(tmp_path / "run")
    assert all(name.startswith("network.") for name in actor.state_dict())
    out = tmp_path / "policy.overlay"
    assert export_verb([str(tmp_path / "run"), "--out", str(out), "--licence", "CC0-1.0"]) == 0
    assert "overlay for the file with SHA-256" in capsys.readouterr().out
    facts = Overlay.load(out).metadata
    assert (facts["licence"], facts["training"]["method"], facts["parent"]) == (
        "CC0-1.0",
        "finetune",
        {"name": pendulum.name},
    )
    assert out.stat().st_size < 1e6
    played = deployed(str(pendulum), overlay=out)
    obs, noise = draw_obs(actor, 5), torch.randn(5, *actor.noise_shape)
    assert torch.allclose(played.act(obs, noise), actor.act(obs, noise), atol=1e-5, rtol=1e-5)
    # The same episodes in torch and from the two files.
    both = []
    for source in ([str(tmp_path / "run")], [str(pendulum), "--overlay", str(out)]):
        assert evaluate([*source, "--env", ENV, "--episodes", "4", "--json"]) == 0
        both.append(json.loads(capsys.readouterr().out))
    assert both[0]["return"] == pytest.approx(both[1]["return"])
    assert (
        run(
            [
                str(pendulum),
                "--overlay",
                str(out),
                "--env",
                ENV,
                "--hz",
                "500",
                "--steps",
                "12",
                "--episodes",
                "9",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["steps"] == 12
    if algo in ("residual", "resip"):
        with pytest.raises(UserError, match=r"corrects every step of a chunk, and a server makes whole chunks: serve"):
            serve([str(pendulum), "--overlay", str(out)])


def test_a_base_behind_an_address(tmp_path, pendulum, capsys):
    pytest.importorskip("websockets", reason="pip install 'noisepilot[serve]'")
    from noisepilot.deploy.runtime import RemotePolicy
    from noisepilot.deploy.server.background import serving

    out = tmp_path / "policy.overlay"
    with serving(Policy.load(pendulum)) as address:
        words = ["--algo", "dsrl-sac", "--policy", address, "--out", str(tmp_path / "run"), *SMALL]
        assert finetune([*words, *METHODS["dsrl-sac"]]) == 0
        assert export_verb([str(tmp_path / "run"), "--out", str(out)]) == 0
        played = RemotePolicy(address).under(out)
        words = ["--env", ENV, "--hz", "500", "--steps", "6", "--episodes", "9", "--overlay", str(out), "--json"]
        capsys.readouterr()
        assert run([address, *words]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 6
        here = Policy.load(pendulum, overlay=out)  # the same file
        obs, noise = {"state": np.ones((1, 4))}, np.ones(here.spec.noise_shape)
        assert np.array_equal(played.act(obs, noise), here.act(obs, noise))
    with serving(here) as address:
        served = RemotePolicy(address)
        assert np.abs(served.act(obs, noise) - here.act(obs, noise)).max() < 1e-6
        assert served.digest == here.digest
        with pytest.raises(PolicyError, match="was trained on another file"):
            served.under(out)  # it is on already


def test_a_file_without_noise_at_its_steps(tmp_path):
    from noisepilot.policies import save_policy

    policy = in_pendulum("ddpm20")
    save_policy(policy, tmp_path / "run")
    assert export_verb([str(tmp_path / "run"), "--out", str(tmp_path / "p.npz"), "--eta", "0"]) == 0
    played = Policy.load(tmp_path / "p.npz")
    assert played.spec.noise_shape == (1, 4, 1)
    obs, still = draw_obs(policy, 3), policy.with_sampler(policy.config.sampler.without_noise())
    noise = torch.randn(3, 1, 4, 1)
    assert (
        np.abs(played.act({k: v.numpy() for k, v in obs.items()}, noise) - still.act(obs, noise).numpy()).max() < 1e-5
    )


def test_resumed_on_another_base(tmp_path, pendulum):
    base = tmp_path / "base.npz"
    export(in_pendulum("flow1"), base, provenance={"data_hash": "demos"})
    words = ["--algo", "dsrl-sac", "--policy", str(base), "--out", str(tmp_path / "run"), *SMALL, *METHODS["dsrl-sac"]]
    assert finetune(words) == 0
    assert finetune([*words, "--resume", "--budget.iterations", "2"]) == 0
    export(in_pendulum("ddim5"), base, provenance={"data_hash": "demos"})
    with pytest.raises(UserError, match=r"base\.npz is not the base of this adapter \(SHA-256 \w{12}\.\.\., not"):
        finetune([*words, "--resume", "--budget.iterations", "3"])
    with pytest.raises(UserError, match="is not the base of this adapter"):
        load_policy(tmp_path / "run")


def test_an_adapter_that_was_trained_on_a_run(tmp_path):
    policy = make_policy("history")
    actor = (
        SteeredConfig(policy.config, *NOISE["low_rank"])
        .build(policy.spec, policy.with_sampler(policy.config.sampler.without_noise()))
        .eval()
    )
    noisy, still = tmp_path / "noisy.npz", tmp_path / "still.npz"
    export(policy, noisy, provenance={})
    export(actor.base, still, provenance={})
    with pytest.raises(UserError, match=r"draws noise \(4, 6, 2\), the adapter's base \(1, 6, 2\).*--eta 0"):
        export_overlay(actor, tmp_path / "a.overlay", Policy.load(noisy), provenance={})
    played = Policy.load(
        still, overlay=export_overlay(actor, tmp_path / "a.overlay", Policy.load(still), provenance={})
    )
    obs, noise = draw_obs(actor, 3), torch.randn(3, *actor.noise_shape)
    assert (
        np.abs(played.act({k: v.numpy() for k, v in obs.items()}, noise.numpy()) - actor.act(obs, noise).numpy()).max()
        < 1e-5
    )
    residual = ResidualConfig(policy.config, *RESIDUAL["resip"]).build(policy.spec, policy).eval()
    path = export_overlay(residual, tmp_path / "b.overlay", Policy.load(noisy), provenance={})
    assert Overlay.load(path).kind == "residual"
    other = make_policy("history")
    with torch.no_grad():
        next(other.network.parameters()).add_(0.5)
    export(other, tmp_path / "other.npz", provenance={})
    with pytest.raises(UserError, match=r"not exported: numpy .* differs from torch"):
        export_overlay(residual, tmp_path / "c.overlay", Policy.load(tmp_path / "other.npz"), provenance={})
    assert not (tmp_path / "c.overlay").exists()


# Refusals


def rewritten(content, **changes):
    """The file with other metadata (a mapping) or arrays."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    facts = json.loads(str(arrays.pop("metadata"))) | changes.pop("metadata", {})
    buffer = io.BytesIO()
    arrays = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
    np.savez(buffer, metadata=np.array(json.dumps(facts)), **arrays)
    return buffer.getvalue()


def test_what_is_no_overlay_of_this_base_is_refused_in_one_line(tmp_path, base):
    good = export_overlay(steered(Base(base), "full"), tmp_path / "good.overlay", Policy.load(base), provenance={})
    content = good.read_bytes()
    other = export(make_policy("ddim5"), tmp_path / "other.npz", provenance={})
    bad = tmp_path / "bad.overlay"
    nan = np.full((16, 6), np.nan, np.float32)
    for made, words in (
        (b"\x08\x0a an ONNX file", "is no overlay: `noisepilot export ADAPTER"),
        (b"", "is no overlay"),
        (other.read_bytes(), "is a policy of its own and no overlay"),
        (content[: len(content) // 2], "is not a readable policy"),
        (content[:-30], "is not a readable policy"),
        (content.replace(b"basis", b"bases"), "is "),
        (
            rewritten(content, metadata={"schema": 2}),
            "has schema 2, this runtime reads overlays up to schema 1: update",
        ),
        (rewritten(content, metadata={"overlay": "lora"}), "has kind 'lora', this runtime"),
        (rewritten(content, metadata={"activation": "sine"}), "is incomplete"),
        (rewritten(content, metadata={"bound": None}), "is incomplete"),
        (rewritten(content, metadata={"observations": ["state", "wind"]}), "is incomplete"),
        (rewritten(content, basis=None), "is incomplete"),
        (rewritten(content, **{"layers.1.weight": np.zeros((16, 9), np.float32)}), "do not follow each other"),
        (rewritten(content, **{"norms.1.bias": np.zeros(9, np.float32)}), "do not follow each other"),
        (rewritten(content, **{"layers.1.bias": np.array(["a"] * 16)}), "is incomplete"),
        (rewritten(content, **{"observation.state.center": np.zeros(3, np.float32)}), "state.center has shape"),
        (rewritten(content, basis=np.eye(3, dtype=np.float32)), "does not fit its base"),
        (rewritten(content, **{"layers.0.weight": nan}), "not finite"),
        (rewritten(content, **{"layers.0.weight": np.zeros((16, 5), np.float32)}), "does not fit its base .*maps 5 to"),
    ):
        bad.write_bytes(made)
        with pytest.raises(PolicyError, match=words) as error:
            Policy.load(base, overlay=bad)
        assert "\n" not in str(error.value)
    with pytest.raises(
        PolicyError, match=r"was trained on another file \(SHA-256 \w{12}\.\.\., here \w{12}\.\.\.\): give"
    ):
        Policy.load(other, overlay=good)
    with pytest.raises(PolicyError, match=r"good\.overlay is an overlay: give the file that it was trained on"):
        Policy.load(good)
    with pytest.raises(PolicyError, match=r"cannot read .*none\.overlay: No such file"):
        Policy.load(base, overlay=tmp_path / "none.overlay")


def test_methods_and_bases_that_do_not_go_together(tmp_path, base, pendulum):
    noisy = export(in_pendulum("ddpm20"), tmp_path / "noisy.npz", provenance={})
    out = ["--out", str(tmp_path / "run"), *SMALL]
    for words, message in (
        (
            ["--algo", "dppo", "--policy", str(pendulum)],
            "can only be played, and dppo learns its weights: choose --algo",
        ),
        (["--algo", "dql", "--policy", str(pendulum)], "can only be played, and dql learns"),
        (
            ["--algo", "dsrl-na", "--policy", str(noisy), *OFF],
            "draws noise 21 times per decision: export it with --eta 0",
        ),
        (["--algo", "dsrl-sac", "--policy", str(pendulum), "--algo.base-steps", "2", *OFF], "in its own steps"),
        (["--algo", "dsrl-sac", "--policy", str(tmp_path / "none.onnx"), *OFF], "cannot read .*none.onnx"),
    ):
        with pytest.raises(UserError, match=message):
            finetune([*words, *out])
        assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="belongs on top of an exported file, and run is none"):
        evaluate(["run", "--overlay", "a.overlay"])
