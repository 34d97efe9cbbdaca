"""Official weights become policies: checkpoints and plain arrays of both kinds, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.experiments.cli import main
from noisepilot.policies import MLP, PolicyConfig, Stochastic, load_policy
from noisepilot.policies.foreign.dppo import fill, read_official
from noisepilot.policies.foreign.dppo_sizes import sized
from noisepilot.spec import ArraySpec

from ..policies.foreign.files import checkpoint, weights_of
from ..policies.parity import Fixture
from ..policies.test_parity_dppo import close

KINDS = [
    ("dppo", ["--kind", "diffusion"], 20),
    ("reinflow", ["--kind", "flow", "--policy.path.shown", "stretched"], 4),
]


def arrays(folder, name):
    return dict(np.load(folder / "parity" / f"base_{name}_hopper.npz"))


def run(shared_data, weights, out, *more):
    limits = shared_data / "parity" / "base_hopper_normalization.npz"
    return main(
        ["import", "hopper", *more, "--weights", str(weights), "--normalization", str(limits), "--out", str(out)]
    )


@pytest.mark.parametrize("suffix", ["npz", "pt"])
@pytest.mark.parametrize(("name", "kind", "steps"), KINDS)
def test_pretrained(shared_data, tmp_path, capsys, name, kind, steps, suffix):
    theirs = arrays(shared_data, name)
    weights = shared_data / "parity" / f"base_{name}_hopper.npz"
    if suffix == "pt":
        weights = checkpoint(tmp_path / "state_200.pt", theirs, epoch=200)
    out = tmp_path / "policy"
    assert run(shared_data, weights, out, *kind) == 0
    said = capsys.readouterr().out
    assert "hidden (512, 512, 512), condition_hidden (), time_dim 16, residual True" in said
    assert "left out: model/network (12 tensors)" in said
    policy = load_policy(out, "cpu")
    assert policy.config.sampler.steps == steps
    assert (policy.spec.env, policy.spec.horizon, policy.prefix) == ("Hopper-v5", 4, None)
    assert (policy.network.trunk[0].weight.detach().numpy() == theirs["ema/network.mlp_mean.layers.0.weight"]).all()
    assert run(shared_data, weights, out, *kind, "--prefix", "model/network.") == 0
    raw = load_policy(out, "cpu").network.trunk[0].weight.detach().numpy()
    assert (raw == theirs["model/network.mlp_mean.layers.0.weight"]).all()


def test_fine_tuned_by_dppo(shared_data, tmp_path, capsys):
    theirs = arrays(shared_data, "dppo")
    base = {k.partition(".")[2]: v for k, v in theirs.items() if k.startswith("ema/")}
    tuned = {k: v + 0.01 for k, v in base.items()}
    parts = {
        **{f"model/{p}.{k}": v for p in ("network", "actor") for k, v in base.items()},
        **{f"model/actor_ft.{k}": v for k, v in tuned.items()},
        "model/critic.Q1.layers.0.weight": np.ones((256, 11), np.float32),
    }
    weights, out = checkpoint(tmp_path / "state_40.pt", parts, itr=40), tmp_path / "policy"
    assert run(shared_data, weights, out) == 2
    assert "does not say how many denoising steps: give ft_denoising_steps" in capsys.readouterr().err
    assert not out.exists()
    assert run(shared_data, weights, out, "--finetune-steps", "10") == 0
    said = capsys.readouterr().out
    assert "weights: model/actor_ft.*" in said
    assert "left out: model/critic (1 tensors)" in said
    assert "left out: model/network (12 tensors)" in said
    policy = load_policy(out, "cpu")
    first = "mlp_mean.layers.0.weight"
    assert policy.first_tuned == 10
    assert (policy.prefix.trunk[0].weight.numpy() == base[first]).all()
    assert (policy.network.trunk[0].weight.detach().numpy() == tuned[first]).all()
    assert run(shared_data, weights, out, "--finetune-steps", "20") == 0
    assert load_policy(out, "cpu").prefix is None


def test_a_tuned_chain_is_the_official_one(shared_data, tmp_path):
    f = Fixture(shared_data, "dppo_sample_ddpm20")
    names = [k for k in f.arrays if k.startswith("w.")]
    weights = checkpoint(tmp_path / "state_1.pt", {f"model/{k[2:]}": f.arrays[k] for k in names}, itr=1)
    state, action = f.set("Do"), f.set("Da")
    limits = {
        "obs_min": -np.ones(state),
        "obs_max": np.ones(state),
        "action_min": -np.ones(action),
        "action_max": np.ones(action),
    }
    np.savez(tmp_path / "n.npz", **limits)
    found = read_official(weights)
    config = sized(PolicyConfig(), found, {"state": ArraySpec((state,))}, action)
    assert (config.network.hidden, config.horizon) == (f.set("mlp_dims"), f.set("Tp"))
    spec = config.spec({"state": ArraySpec((state,))}, ArraySpec((action,)))
    policy = fill(config.build(spec).double(), found, tmp_path / "n.npz", f.set("Kft"))
    noise = torch.stack([f.tensor("noise.init"), *f.tensor("noise.steps")], 1)
    explore = Stochastic(1.0, f.set("min_sampling_std"), f.set("min_logprob_std"))
    with torch.no_grad():
        chain = policy.sample(policy.context(f.tensor("state").flatten(1)), noise, start=10, stochastic=explore)
    close(chain.x, f.tensor("out64.train.chain"))


def test_fine_tuned_by_reinflow(shared_data, tmp_path, capsys):
    theirs = {k.partition(".")[2]: v for k, v in arrays(shared_data, "reinflow").items() if k.startswith("ema/")}
    parts = {
        **{f"model/actor_old.{k}": v for k, v in theirs.items()},
        **{f"model/actor_ft.policy.{k}": v + 1 for k, v in theirs.items()},
        "model/actor_ft.explore_noise_net.logvar_min": np.float32(0.1),
        "model/critic.Q1.layers.0.weight": np.ones((256, 11), np.float32),
    }
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    weights = checkpoint(tmp_path / "last.pt", parts, itr=3, actor_optimizer=optimizer)
    out = tmp_path / "policy"
    assert run(shared_data, weights, out, *KINDS[1][1]) == 0
    said = capsys.readouterr().out
    for line in ("model/actor_old (12 tensors)", "model/actor_ft (1 tensors)", "model/critic (1 tensors)"):
        assert f"left out: {line}" in said
    first = "mlp_mean.layers.0.weight"
    assert (load_policy(out, "cpu").network.trunk[0].weight.detach().numpy() == theirs[first] + 1).all()
    alone = {f"policy/network.{k}": v for k, v in theirs.items()}
    assert run(shared_data, checkpoint(tmp_path / "policy.pt", alone, itr=3), out, *KINDS[1][1]) == 0
    assert run(shared_data, weights, out, *KINDS[1][1], "--finetune-steps", "2") == 2
    assert "holds no frozen base" in capsys.readouterr().err


SHAPES = [
    "dppo_mlp_hopper",
    "dppo_mlp_kitchen",
    "dppo_mlp_plain_hist",
    "dppo_mlp_square_narrow",
    "reinflow_flow_mlp",
    "reinflow_shortcut_mlp",
    "reinflow_shortcut_concat_mlp",
]


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_are_read_off_the_weights(shared_data, tmp_path, name):
    f = Fixture(shared_data, name)
    found = read_official(checkpoint(tmp_path / "state_1.pt", weights_of(f, "net")))
    shortcut = "shortcut" in name
    obs = {"state": ArraySpec((f.set("Do"),))}
    config = sized(PolicyConfig(MLP(step_size=shortcut), n_action_steps=2), found, obs, f.set("Da"))
    assert config.network == MLP(
        f.set("mlp_dims"),
        f.set("cond_mlp_dims"),
        f.set("time_dim"),
        residual=bool(f.set("residual")),
        step_size=shortcut,
        combine="add" if name == "reinflow_shortcut_mlp" else "concat",
    )
    assert (config.horizon, config.n_obs_steps, config.n_action_steps) == (f.set("Tp"), f.set("To"), 2)
    with pytest.raises(UserError, match="step size: import it with --kind"):
        sized(PolicyConfig(MLP(step_size=not shortcut)), found, obs, f.set("Da"))
    with pytest.raises(UserError, match=r"no multiple of the environment's action of 1000: choose its recipe"):
        sized(PolicyConfig(MLP(step_size=shortcut)), found, obs, 1000)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["hopper", "--weights", "absent.pt"], "absent.pt does not exist"),
        (["hopper", "--weights", "u.pt"], "--normalization is missing"),
        (["hopper", "--kind", "flw"], "kind of policy"),
        (["default", "--weights", "u.pt", "--normalization", "n", "--out", "o"], "import needs an environment"),
        (["hopper", "--weights", "w.npz", "--normalization", "n.npz", "--out", "o"], "w.npz is not a readable"),
        (["hopper", "--weights", "w.pt", "--normalization", "n.npz", "--out", "o"], "w.pt is no checkpoint of torch"),
        (
            ["hopper", "--weights", "u.pt", "--normalization", "n.npz", "--out", "o"],
            "u.pt: holds no denoising MLP or U-Net, but down",
        ),
        (["hopper", "--weights", "e.pt", "--normalization", "n.npz", "--out", "o"], "it holds model/encoder"),
        (
            ["hopper", "--weights", "e.pt", "--normalization", "n.npz", "--out", "o", "--prefix", "ema/network."],
            "has no weights named 'ema/network.'",
        ),
    ],
)
def test_bad_input(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("w.npz", "w.pt"):
        Path(name).write_bytes(b"nothing that can be read")
    checkpoint("u.pt", {"ema/network.down.0.weight": np.ones((2, 2, 3))})
    checkpoint("e.pt", {"model/encoder.0.weight": np.ones((2, 2))})
    assert main(["import", *argv]) == 2
    assert words in capsys.readouterr().err
    assert not Path("o").exists()
