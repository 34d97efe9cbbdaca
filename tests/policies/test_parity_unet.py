"""The U-Nets of Diffusion Policy, DPPO and LeRobot, number by number (float64)."""

import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies import UNet
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.foreign.unet import load_official_unet

from .parity import Fixture
from .test_parity_dppo import close


def official(f: Fixture) -> dict[str, torch.Tensor]:
    return {k.removeprefix("w.net."): f.tensor(k) for k in f.arrays if k.startswith("w.net.")}


def dppo(f: Fixture) -> UNet:
    hidden = f.set("cond_mlp_dims")
    return UNet(
        tuple(f.set("dim") * m for m in f.set("dim_mults")),
        groups=f.set("n_groups"),
        last_groups=f.set("n_groups"),
        groupnorm_eps=f.set("groupnorm_eps"),
        time_dim=f.set("dsed"),
        condition_hidden=hidden,
        film_scale=bool(f.set("cond_predict_scale")),
        film_layers=1 if hidden or f.set("smaller_encoder") else 3,
    )


def diffusion_policy(f: Fixture, scale: str = "cond_predict_scale", local: bool = False) -> UNet:
    return UNet(
        f.set("down_dims"),
        f.set("kernel_size"),
        f.set("n_groups"),
        time_dim=f.set("dsed"),
        film_scale=bool(f.set(scale)),
        local=local,
    )


def check(f: Fixture, config: UNet, source, observed: torch.Tensor) -> None:
    x, t = f.tensor("x"), f.tensor("t").double()
    rows, horizon, action_dim = x.shape
    steps = observed.shape[1] if observed.dim() == 3 else 1
    network = config.build(Sizes((observed.shape[-1],), steps, horizon, action_dim)).double()
    load_official_unet(network, official(f), source)
    times, condition = network.time_embedding(t), network.condition(observed.flatten(1))
    assert condition.shape == (rows, network.condition_dim)
    close(network(x, times, condition).detach(), f.tensor("out64.eps"))
    step = network.fold(times, condition)
    for k in range(rows):
        close(step(k, x)[k].detach(), f.tensor("out64.eps")[k])


@pytest.mark.parametrize("name", ["additive_small_encoder", "furniture_like", "square"])
def test_dppo(shared_data, name):
    f = Fixture(shared_data, f"dppo_unet_{name}")
    check(f, dppo(f), "dppo", f.tensor("state"))


@pytest.mark.parametrize("name", ["global", "global_no_scale_k3"])
def test_diffusion_policy(shared_data, name):
    f = Fixture(shared_data, f"dp_unet_{name}")
    check(f, diffusion_policy(f), "diffusion_policy", f.tensor("global_cond"))


def test_diffusion_policy_with_local_conditioning(shared_data):
    f = Fixture(shared_data, "dp_unet_local")
    check(f, diffusion_policy(f, local=True), "diffusion_policy", f.tensor("local_cond"))


@pytest.mark.parametrize("name", ["film", "bias_only"])
def test_lerobot(shared_data, name):
    f = Fixture(shared_data, f"lerobot_unet_{name}")
    check(f, diffusion_policy(f, "film_scale"), "lerobot", f.tensor("global_cond"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("final_conv.1.bias"), r"'out.bias' is nothing in them, \(2,\)"),
        (lambda w: w.update(extra=torch.zeros(1)), r"'extra' is \(1,\) in them, nothing"),
        (lambda w: w.update({"final_conv.1.bias": torch.zeros(3)}), r"'out.bias' is \(3,\) in them, \(2,\)"),
    ],
)
def test_what_does_not_fit_is_named(shared_data, change, named):
    f = Fixture(shared_data, "lerobot_unet_film")
    weights, network = official(f), diffusion_policy(f, "film_scale").build(Sizes((20,), 1, 16, 2))
    before = network.out.bias.clone()
    change(weights)
    with pytest.raises(UserError, match=named):
        load_official_unet(network, weights, "lerobot")
    assert (network.out.bias == before).all()
