"""The official Diffusion-QL's schedule, networks and chain, number by number. Its last draw of noise is not used."""

import pytest
import torch

from noisepilot.policies import MLP, PolicyConfig, Sampler, Transitions
from noisepilot.policies.critic import QMLP
from noisepilot.policies.path import VPPath

from ..algos.toys_q import load, make
from .parity import Fixture
from .test_parity_dppo import close

LAYERS = {"time_mlp": "time_embedding", "mid_layer": "trunk", "final_layer": "trunk.6"}


def actor_weights(f: Fixture, part: str, prefix: str = "w", dtype=torch.float64) -> dict[str, torch.Tensor]:
    """The official noise network's arrays under our names."""
    start = f"{prefix}.{part}.model."
    found = {}
    for key in f.arrays:
        if key.startswith(start):
            layer, _, rest = key.removeprefix(start).partition(".")
            found[f"{LAYERS[layer]}.{rest}"] = f.tensor(key, dtype)
    return found


def critic_weights(f: Fixture, part: str, prefix: str = "w", dtype=torch.float64) -> dict[str, torch.Tensor]:
    """The two official critics, stacked."""
    found = {}
    for i, official in enumerate((0, 2, 4, 6)):
        name = f"{prefix}.{part}.q%d_model.{official}.%s"
        found[f"layers.{i}.weight"] = torch.stack([f.tensor(name % (q, "weight"), dtype).t() for q in (1, 2)])
        found[f"layers.{i}.bias"] = torch.stack([f.tensor(name % (q, "bias"), dtype)[None] for q in (1, 2)])
    return found


@pytest.mark.parametrize("levels", [5, 20])
def test_schedule(shared_data, levels):
    f, key = Fixture(shared_data, "dql_schedules"), f"out64.vp.T{levels}"
    path = VPPath(levels)
    close(path.betas(), f.tensor(f"{key}.betas"))
    close(path.alpha_bar(), f.tensor(f"{key}.alphas_cumprod"))
    p, q, c, d, std = Transitions(path, "eps", Sampler(levels)).coefficients[:, ::-1].copy()
    close(p, f.tensor(f"{key}.sqrt_recip_alphas_cumprod"))
    close(-q, f.tensor(f"{key}.sqrt_recipm1_alphas_cumprod"))
    close(c, f.tensor(f"{key}.posterior_mean_coef1"))
    close(d, f.tensor(f"{key}.posterior_mean_coef2"))
    close(std**2, f.tensor(f"{key}.posterior_variance"))


@pytest.mark.parametrize(
    ("dtype", "out", "tolerance"), [(torch.float64, "out64", 1e-10), (torch.float32, "out32", 2e-5)]
)
def test_networks_and_chain(shared_data, dtype, out, tolerance):
    f = Fixture(shared_data, "dql_forward_sample")
    width, steps = (f.set("width"),) * 3, f.set("T")
    sampler = Sampler(steps, noise_clip=float("inf"))
    config = PolicyConfig(
        MLP(width, activation="mish", residual=False), VPPath(steps), sampler, horizon=1, n_action_steps=1
    )
    policy = make(config, f.set("Do"), f.set("Da"), dtype)
    load(policy.network, actor_weights(f, "actor", dtype=dtype))
    critic = QMLP(width).build(f.set("Do"), f.set("Da")).to(dtype)
    load(critic, critic_weights(f, "critic", dtype=dtype))
    state, x = f.tensor("state", dtype), f.tensor("x", dtype)
    context = policy.encode({"state": state[:, None]})
    with torch.no_grad():
        t = (steps - 1 - f.tensor("t")).double() / steps
        close(policy.predict(context, x[:, None], t)[:, 0], f.tensor(f"{out}.eps"), tolerance)
        q = critic(context.features, x)
        for i, name in enumerate(("q1", "q2")):
            close(q[i], f.tensor(f"{out}.{name}").flatten(), tolerance)
        noise = torch.cat([f.tensor("noise.init", dtype)[None], f.tensor("noise.steps", dtype)]).transpose(0, 1)
        chain = policy.sample(context, noise[:, :, None])
        close(chain.x[:, :-1, 0], f.tensor(f"{out}.chain")[:, :-1], tolerance)
        close(chain.action[:, 0], f.tensor(f"{out}.action"), tolerance)
