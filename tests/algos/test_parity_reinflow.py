"""ReinFlow against the official numbers: noise, chains, log-probs, entropy, losses and gradients.

Reproduced on purpose: the stretched time grid of the published results. Not reproduced: the W2 regulariser's start,
which the official code overwrites with the frozen policy's first step before the tuned policy uses it.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from noisepilot.algos.decisions import Decisions
from noisepilot.algos.reinflow import Chains, NoiseMLP, ReinFlow, chain_entropy, whole_chain
from noisepilot.policies import (
    MLP,
    CriticMLP,
    LinearPath,
    Matching,
    Policy,
    PolicyConfig,
    Sampler,
    Shortcut,
)
from noisepilot.spec import ArraySpec

from ..policies.parity import Fixture

LOSSES = [
    "flow_K1_plain", "flow_K4_plain", "flow_K4_ft2_plain", "shortcut_K1_plain", "shortcut_K4_plain",
    "flow_K1_bc", "flow_K4_bc", "flow_K4_ft2_bc",
]  # fmt: skip
NOISES = ["time_state", "shortcut", "state_only"]


def close(a, b, tolerance=1e-9):
    a, b = (np.asarray(v.detach() if isinstance(v, torch.Tensor) else v, np.float64) for v in (a, b))
    assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-12), np.abs(a - b).max()


def policy_of(f: Fixture, dtype=torch.float64, shown="stretched") -> Policy:
    shortcut = bool(f.set("shortcut"))
    config = PolicyConfig(
        MLP(
            hidden=f.set("mlp_dims"),
            condition_hidden=f.set("cond_mlp_dims"),
            time_dim=f.set("time_dim"),
            activation="relu" if f.set("relu") else "mish",
            residual=bool(f.set("residual")),
            step_size=shortcut,
            combine="add" if shortcut and f.set("combine") == 0 else "concat",
        ),
        LinearPath(shown="grid" if shortcut else shown),
        Sampler(f.set("K") if "set.K" in f.arrays else 4, eta=0.0, clip_data=None, clip_mean=1.0),
        predicts="velocity",
        objective=Shortcut() if shortcut else Matching(),
        horizon=f.set("Tp"),
        n_action_steps=f.set("Tp"),
    )
    policy = Policy(config, config.spec({"state": ArraySpec((f.set("Do"),))}, ArraySpec((f.set("Da"),))))
    for name, dim in (("state", f.set("Do")), ("action", f.set("Da"))):
        policy.normalizer.set(name, np.zeros(dim), np.ones(dim))
    return policy.to(dtype)


def algo_of(f: Fixture) -> ReinFlow:
    return ReinFlow(
        critic=CriticMLP(hidden=f.set("critic_dims")),
        finetune_steps=f.set("Kft") if "set.Kft" in f.arrays else None,
        noise=NoiseMLP(
            f.set("noise_hidden_dims"),
            min_std=f.set("min_std"),
            max_std=f.set("max_std"),
            sees_time=not f.set("time_independent"),
            decay=0,
        ),
        clip=f.set("clip_coef"),
        log_prob_range=(f.set("logprob_min"), f.set("logprob_max")),
        entropy_coef=f.set("ent_coef"),
        bc_coef=f.set("bc_coef") if f.set("use_bc") else 0.0,
    )


def state_of(f: Fixture, part="actor_ft", dtype=torch.float64):
    policy = policy_of(f, dtype)
    algo = algo_of(f)
    state = algo.init(policy)
    ours = f.weights(part, dtype=dtype)
    state.policy.network.load_state_dict(network_part(ours))
    state.noise.load_state_dict(noise_part(ours))
    for module, name in ((state.base.network, "actor_old"), (state.critic, "critic")):
        if theirs := f.weights(name, dtype=dtype):
            module.load_state_dict(theirs)
    return algo, state


def network_part(weights):
    return {k.removeprefix("policy."): v for k, v in weights.items() if k.startswith("policy.")}


def noise_part(weights):
    return {k.removeprefix("noise."): v for k, v in weights.items() if k.startswith("noise.")}


@pytest.mark.parametrize("name", NOISES)
def test_noise_network(shared_data, name):
    f = Fixture(shared_data, f"reinflow_sigma_{name}")
    _, state = state_of(f, "noisy")
    context = state.policy.context(f.tensor("state").flatten(1))
    grid = f.tensor("t_grid")
    d = f.tensor("d")
    for k in range(4):
        t = torch.full((5,), float(grid[k]), dtype=torch.float64)
        times = state.policy.network.time_embedding(t, d)
        sigma = torch.stack([state.noise(times[i : i + 1], context.condition[i : i + 1])[0, 0] for i in range(5)])
        close(sigma.flatten(1), f.tensor(f"out64.sigma_step{k}"))
        close(state.policy.network(f.tensor("x"), times, context.condition), f.tensor(f"out64.velocity_step{k}"))


@pytest.mark.parametrize("name", ["flow_K1", "flow_K4", "flow_K4_ft2", "shortcut_K1", "shortcut_K4"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_chains_and_log_probs(shared_data, name, dtype):
    f = Fixture(shared_data, f"reinflow_actions_{name}")
    _, state = state_of(f, dtype=dtype)
    out, tolerance = ("out64", 1e-10) if dtype == torch.float64 else ("out32", 2e-5)
    context = state.policy.context(f.tensor("state", dtype).flatten(1))
    first = f.tensor("noise.init", dtype).view(-1, 1, f.set("Tp"), f.set("Da"))
    noise = torch.cat([first, f.tensor("noise.steps", dtype).transpose(0, 1)], 1)
    with torch.no_grad():
        std = state.std(context)
        chain = state.policy.sample(context, noise, stochastic=std)
        close(chain.x, f.tensor(f"{out}.train.chain"), tolerance)
        log_prob = whole_chain(chain.x[:, 0], chain.log_prob)
        close(log_prob, f.tensor(f"{out}.train.logprob_from_sampler"), tolerance * 10)
        close(state.policy.sample(context, noise[:, :1]).action, f.tensor(f"{out}.eval.action"), tolerance)
        given = f.tensor("chain_for_logprob", dtype)
        scored = whole_chain(given[:, 0], state.policy.score(context, replace(chain, x=given, log_prob=None), std))
        grid = "grid_uniform" if f.set("shortcut") else "grid01"
        close(scored, f.tensor(f"{out}.logprob_{grid}"), tolerance * 10)
        close(chain_entropy(std), f.tensor(f"{out}.entropy_{grid}"), tolerance * 10)
        close(std.mean(), f.tensor(f"{out}.std_mean_{grid}"), tolerance * 10)
        close(state.critic(context.features), f.tensor(f"{out}.value").flatten(), tolerance * 10)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(shared_data, name):
    f = Fixture(shared_data, f"reinflow_loss_{name}")
    algo, state = state_of(f)
    rows, one = torch.arange(24), torch.ones(24, dtype=torch.float64)
    extras = {
        "features": f.tensor("state").flatten(1),
        "latents": f.tensor("chains"),
        "log_prob": f.tensor("oldlogprobs"),
    }
    decisions = Decisions(extras, f.tensor("advantages"), f.tensor("returns"), f.tensor("oldvalues"))
    batch = replace(algo, repeats=1).minibatch_of(decisions, rows)
    assert (batch.weight == one).all()

    plain = replace(algo, entropy_coef=0.0, bc_coef=0.0)
    pg, sums = plain.policy_loss(state, batch)
    assert abs(pg.mean().item() - f.tensor("out64.pg_loss").item()) < 1e-8
    assert abs(sums["approx_kl"].item() / 24 - f.tensor("out64.approx_kl").item()) < 1e-10
    close(sums["clip_fraction"] / 24, f.tensor("out64.clipfrac"), 1e-6)  # a float32 mean
    close(sums["ratio"] / 24, f.tensor("out64.ratio_mean"))
    close(-sums["entropy"] / 24, f.tensor("out64.entropy_loss"))
    close(sums["noise_std"] / 24, f.tensor("out64.noise_std"))

    state.zero_grad()
    value_loss = algo.value_loss(state, decisions, one)
    close(value_loss, f.tensor("out64.v_loss"))
    for key, parameter in state.critic.named_parameters():
        close(parameter.grad, f.weights("critic", prefix="out64.grad")[key], 1e-7)

    if f.set("use_bc"):
        context = state.policy.context(decisions.features)
        close(
            algo.distance(state, context, state.base.context(context.features)).mean(),
            f.tensor("out64.bc_loss_if_both_start_at_zero"),
        )
        return  # the official gradients belong to the overwritten start
    loss, _ = algo.policy_loss(state, batch)
    state.zero_grad()
    loss.mean().backward()
    grads = f.weights("actor_ft", prefix="out64.grad")
    for module, theirs in ((state.policy.network, network_part(grads)), (state.noise, noise_part(grads))):
        for key, parameter in module.named_parameters():
            close(parameter.grad, theirs[key], 1e-6)


def test_chains_of_a_minibatch_know_their_weights():
    decisions = Decisions({"latents": torch.zeros(4, 2, 1, 1)}, torch.arange(4.0), torch.zeros(4), torch.zeros(4))
    batch = ReinFlow(repeats=3).minibatch_of(decisions, torch.tensor([0, 4, 8, 2, 1, 10]))  # copies 0 0 0, 2 2, 1
    assert batch.decision.tolist() == [0, 1, 2]
    assert batch.weight.tolist() == [3, 1, 2]
    assert batch.size == 6
    assert batch.multiplicity(4).tolist() == [3, 1, 2, 0]
    repeated = torch.tensor([0.0, 0, 0, 1, 2, 2])
    expected = (repeated - repeated.mean()) / (repeated.std() + 1e-8)
    assert torch.allclose(batch.advantage, expected[[0, 3, 4]], atol=1e-6)
    assert isinstance(batch.parts(None)[0], Chains)
