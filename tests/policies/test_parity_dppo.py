"""The official DPPO's schedules, networks, chains, log-probs and BC loss, number by number (float64)."""

import numpy as np
import pytest
import torch

from noisepilot.policies import (
    MLP,
    CosinePath,
    CriticMLP,
    Policy,
    PolicyConfig,
    Sampler,
    Stochastic,
    Transitions,
)
from noisepilot.spec import ArraySpec

from .parity import Fixture

NETWORKS = ["dppo_mlp_hopper", "dppo_mlp_kitchen", "dppo_mlp_plain_hist", "dppo_mlp_square_narrow"]
SAMPLERS = [
    "dppo_sample_ddpm20",
    "dppo_sample_ddpm20_k20",
    "dppo_sample_ddim5of20_k3",
    "dppo_sample_ddim5of100",
]


def close(ours, theirs, tolerance=1e-10):
    ours, theirs = (torch.as_tensor(np.asarray(v)).double() for v in (ours, theirs))
    scale = theirs.abs().max().clamp(min=1e-12)
    assert ((ours - theirs).abs().max() / scale).item() < tolerance


def policy_of(f: Fixture, sampler: Sampler, levels: int, tuned_steps: int | None = None) -> Policy:
    """A policy of a fixture's sizes with normalisers that change nothing."""
    network = MLP(
        hidden=f.set("mlp_dims"),
        condition_hidden=f.set("cond_mlp_dims"),
        time_dim=f.set("time_dim"),
        activation="relu" if f.set("relu") else "mish",
        residual=bool(f.set("residual")),
    )
    history = f.set("To")
    config = PolicyConfig(
        network,
        CosinePath(levels),
        sampler,
        horizon=f.set("Tp"),
        n_action_steps=f.set("Tp"),
        n_obs_steps=history,
    )
    spec = config.spec({"state": ArraySpec((f.set("Do"),))}, ArraySpec((f.set("Da"),)))
    policy = Policy(config, spec).double()
    for name, dim in (("state", f.set("Do")), ("action", f.set("Da"))):
        policy.normalizer.set(name, np.zeros(dim), np.ones(dim))
    return policy


@pytest.mark.parametrize("name", NETWORKS)
def test_network(shared_data, name):
    f = Fixture(shared_data, name)
    policy = policy_of(f, Sampler(), 20)
    policy.network.load_state_dict(f.weights("net"))
    context = policy.encode({"state": f.tensor("state")})
    times = policy.network.time_embedding(f.tensor("t").double())
    x = f.tensor("x")
    output = policy.network(x, times, context.condition)
    close(output.detach(), f.tensor("out64.eps"))
    folded = policy.network.fold(times[:1], context.condition)(0, x)
    close(folded[:1].detach(), f.tensor("out64.eps")[:1])


def test_critic(shared_data):
    f = Fixture(shared_data, "dppo_critic")
    critic = CriticMLP(f.set("mlp_dims")).build(11).double()
    critic.load_state_dict(f.weights("critic"))
    close(critic(f.tensor("state").flatten(1)).detach(), f.tensor("out64.value").flatten())


@pytest.mark.parametrize("levels", [20, 100])
def test_ddpm_schedule(shared_data, levels):
    f = Fixture(shared_data, "dppo_schedules")
    close(CosinePath(levels).alpha_bar(), f.tensor(f"out64.K{levels}.alphas_cumprod"))
    p, q, c, d, std = Transitions(CosinePath(levels), "eps", Sampler(levels, 1.0, 1.0)).coefficients[:, ::-1].copy()
    close(std**2, f.tensor(f"out64.K{levels}.ddpm_var"))
    close(c, f.tensor(f"out64.K{levels}.ddpm_mu_coef1"))
    close(d, f.tensor(f"out64.K{levels}.ddpm_mu_coef2"))
    close(p, f.tensor(f"out64.K{levels}.sqrt_recip_alphas_cumprod"))
    close(-q, f.tensor(f"out64.K{levels}.sqrt_recipm1_alphas_cumprod"))


@pytest.mark.parametrize(("levels", "steps"), [(100, 5), (20, 5), (20, 10)])
def test_ddim_schedule(shared_data, levels, steps):
    f, key = Fixture(shared_data, "dppo_schedules"), f"out64.ddim{steps}of{levels}"
    path = CosinePath(levels)
    close(path.time_input(path.grid(steps)[:-1]), f.tensor(f"{key}.ddim_t"))
    for eta in (0, 1):
        transitions = Transitions(path, "eps", Sampler(steps, float(eta), 1.0))
        x, zero = torch.full((1, 1, 1), 0.7, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
        means = [transitions.mean(zero, x, k).item() for k in range(steps)]
        close(means, f.tensor(f"{key}.mu_eps0_x0.7_eta{eta}"))
        if eta:
            assert np.abs(transitions.std - f.tensor(f"{key}.sigma_eta1").numpy()).max() < 2e-10


@pytest.mark.parametrize("name", SAMPLERS)
def test_chain_and_log_prob(shared_data, name):
    f = Fixture(shared_data, name)
    ddim, tuned_steps = bool(f.set("use_ddim")), f.set("Kft")
    steps = f.set("ddim_steps") if ddim else f.set("K")
    base = policy_of(f, Sampler(steps, eta=0.0 if ddim else 1.0, noise_clip=f.set("randn_clip")), f.set("K"))
    base.network.load_state_dict(f.weights("actor"))
    policy = base.split(tuned_steps)
    policy.network.load_state_dict(f.weights("actor_ft"))
    context = policy.encode({"state": f.tensor("state")})
    noise = torch.stack([f.tensor("noise.init"), *f.tensor("noise.steps")], 1)
    explore = Stochastic(1.0, f.set("min_sampling_std"), f.set("min_logprob_std"))
    start = steps - tuned_steps
    assert policy.first_tuned == start

    with torch.no_grad():
        chain = policy.sample(context, noise, start=start, stochastic=explore)
        close(chain.x, f.tensor("out64.train.chain"))
        close(policy.sample(context, noise, start=start).x, f.tensor("out64.eval.chain"))
        close(base.sample(context, noise, stochastic=explore).action, f.tensor("out64.train_base_policy.action"))

        given = type(chain)(f.tensor("chain_for_logprob"), None, noise, start)
        close(policy.score(context, given, explore), f.tensor("out64.logprobs"))
        assert chain.log_prob is not None
        assert (policy.score(context, chain, explore) - chain.log_prob).abs().max() < 1e-12


@pytest.mark.parametrize("levels", [20, 100])
def test_bc_loss(shared_data, levels):
    f = Fixture(shared_data, f"dppo_bc_loss_K{levels}")
    policy = policy_of(f, Sampler(levels), levels)
    policy.network.load_state_dict(f.weights("net"))
    t = (levels - 1 - f.tensor("t")).double() / levels
    loss = policy.loss(policy.encode({"state": f.tensor("state")}), f.tensor("x_start"), t, f.tensor("noise")).mean()
    close(loss.detach(), f.tensor("out64.loss"))
    loss.backward()
    grads = f.weights("net", prefix="out64.grad")
    for key, parameter in policy.network.named_parameters():
        close(parameter.grad, grads[key], 1e-9)
