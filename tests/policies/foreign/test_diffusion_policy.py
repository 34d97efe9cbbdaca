"""Diffusion Policy's checkpoints: their networks number by number, and whole decisions as the original makes them."""

import pytest
import torch
from diffusers import DDPMScheduler

from noisepilot.policies import Transformer, UNet, load_policy, save_policy
from noisepilot.policies.foreign.layouts import recognise

from ..parity import Fixture
from ..test_parity_dppo import close
from .files import DDPM, TRANSFORMER, official, unet_settings, workspace


def load(path):
    found = recognise(path)
    assert found is not None
    return found.load(None)


def network_output(policy, f: Fixture, observed: str):
    x, t, seen = (f.tensor(name, policy.dtype) for name in ("x", "t", observed))
    network = policy.network
    with torch.no_grad():
        return network(x, network.time_embedding(t.to(x.dtype)), network.condition(seen.flatten(1)))


def test_unet(shared_data, tmp_path, monkeypatch):
    f = Fixture(shared_data, "dp_unet_global")
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", unet_settings(f), official(f), 10, 2)
    imported = load(path)
    policy = imported.policy
    assert policy.config.network == UNet(f.set("down_dims"), 5, 8, time_dim=32)
    spec = policy.spec
    assert (spec.horizon, spec.n_action_steps, spec.n_obs_steps, policy.config.past_actions) == (15, 8, 2, 1)
    assert imported.left == {"state_dicts/model": 156, "state_dicts/optimizer": 1}
    close(network_output(policy, f, "global_cond"), f.tensor("out32.eps", torch.float32), 1e-5)
    save_policy(policy, tmp_path / "policy")
    again = load_policy(tmp_path / "policy", "cpu")
    close(network_output(again.double(), f, "global_cond"), f.tensor("out64.eps"), 1e-10)


def test_a_decision_is_the_original_one(shared_data, tmp_path, monkeypatch):
    """Normalise, walk diffusers' chain over the whole horizon, return to physical units, execute from now on."""
    f, steps = Fixture(shared_data, "dp_unet_global"), 10
    settings = unet_settings(f, num_inference_steps=steps)
    path, normalizer = workspace(monkeypatch, tmp_path / "latest.ckpt", settings, official(f), 10, 2)
    policy = load(path).policy.double()
    g = torch.Generator().manual_seed(3)
    obs = torch.randn(2, 2, 10, generator=g, dtype=torch.float64)
    noise = torch.randn(2, 1 + steps, 16, 2, generator=g, dtype=torch.float64)

    scale = {k.partition("params_dict.")[2]: v.double() for k, v in normalizer.items()}
    scheduler = DDPMScheduler(**{k: v for k, v in DDPM.items() if k != "_target_"})
    scheduler.alphas_cumprod = torch.from_numpy(policy.config.path.alpha_bar())
    scheduler.set_timesteps(steps)
    draws = iter(noise[:, 1:].unbind(1))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(draws))
    network, x = policy.network, noise[:, 0]
    seen = network.condition((obs * scale["obs.scale"] + scale["obs.offset"]).reshape(2, -1))
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps = network(x, network.time_embedding(torch.full((2,), float(t), dtype=torch.float64)), seen)
            x = scheduler.step(eps, t, x).prev_sample
    executed = ((x - scale["action.offset"]) / scale["action.scale"])[:, 1:9]

    action = policy.act({"state": obs}, noise.roll(-1, 2))[:, : policy.spec.n_action_steps]
    close(action, executed, 1e-5)  # our normaliser keeps 1 / scale in float32


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"oa_step_convention": False}, (14, 8, 2)),
        ({"pred_action_steps_only": True, "n_action_steps": 16}, (16, 16, 0)),
        ({"n_action_steps": 15}, (15, 15, 1)),
    ],
)
def test_where_the_current_action_lies(shared_data, tmp_path, monkeypatch, changes, shape):
    f = Fixture(shared_data, "dp_unet_global")
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", unet_settings(f, **changes), official(f), 10, 2)
    config = load(path).policy.config
    assert (config.horizon, config.n_action_steps, config.past_actions) == shape


def test_unet_of_local_observations(shared_data, tmp_path, monkeypatch):
    f = Fixture(shared_data, "dp_unet_local")
    settings = unet_settings(f, horizon=8, n_action_steps=4, obs_as_local_cond=True, obs_as_global_cond=False)
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", settings, official(f), 9, 3, parts=("model",))
    policy = load(path).policy
    assert policy.config.network.local
    assert policy.config.network.down_dims == f.set("down_dims")


@pytest.mark.parametrize("name", ["causal_obs_mlp_encoder", "obs_transformer_encoder"])
def test_transformer(shared_data, tmp_path, monkeypatch, name):
    f = Fixture(shared_data, f"dp_transformer_{name}")
    observed = f.set("n_obs_steps")
    settings = {
        "_target_": TRANSFORMER,
        "model": {"n_head": f.set("n_head"), "p_drop_emb": 0.0, "p_drop_attn": 0.01},
        "noise_scheduler": DDPM,
        "horizon": "${horizon}",
        "n_obs_steps": observed,
        "n_action_steps": 4,
        "num_inference_steps": None,
        "obs_as_cond": True,
        "pred_action_steps_only": False,
    }
    length, action = f.set("horizon"), f.set("input_dim")
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", settings, official(f), f.set("cond_dim"), action, horizon=length)
    policy = load(path).policy
    assert policy.config.network == Transformer(
        f.set("n_layer"),
        f.set("n_head"),
        f.set("n_emb"),
        f.set("n_cond_layers"),
        causal=bool(f.set("causal_attn")),
        first="oldest",
        dropout=0.01,
    )
    assert (policy.spec.horizon, policy.config.past_actions) == (length - observed + 1, observed - 1)
    close(network_output(policy, f, "cond"), f.tensor("out32.eps", torch.float32), 1e-5)
