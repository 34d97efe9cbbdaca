"""The official FQL's networks, losses, gradients and one update, number by number.

Official quirks: both losses are differentiated before any weight moves (so the two steps are tested apart), and the
target takes up the critic as it was before its step, which ours does not.
Its critic loss is the mean over members, ours the sum.
"""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.dql import DQL
from noisepilot.policies import MLP, LinearPath, PolicyConfig, Sampler
from noisepilot.policies.best_of import propose
from noisepilot.policies.critic import QMLP

from ..policies.parity import Fixture
from ..policies.test_parity_dppo import close
from . import toys_q
from .toys_q import Given, env_spec, errors, flax_critic, flax_flow, make, transitions

NAMES = ["fql_mean", "fql_min_normalized"]
PRECISIONS = [(torch.float64, "out64", 1e-9), (torch.float32, "out32", 1e-4)]
PARTS = {
    "modules_actor_bc_flow": lambda state: state.policy.network,
    "modules_actor_onestep_flow": lambda state: state.student.network,
    "modules_critic": lambda state: state.critic,
    "modules_target_critic": lambda state: state.target,
}


def weights(f: Fixture, part: str, prefix: str = "w", dtype=torch.float64):
    return flax_critic(f, part, prefix, dtype) if "critic" in part else flax_flow(f, part, prefix, 3, dtype)


def setup(f: Fixture, dtype=torch.float64):
    network = MLP(f.set("cfg_actor_hidden_dims"), time_dim=0, activation="gelu", residual=False)
    sampler = Sampler(10, eta=0.0, clip_data=None)
    config = PolicyConfig(network, LinearPath(), sampler, "velocity", horizon=1, n_action_steps=1)
    base = make(config, 9, 3, dtype)
    algo = DQL(
        extract="student",
        act_after=0,
        critic=QMLP(f.set("cfg_value_hidden_dims"), "gelu", 2, "after"),
        actor_q="mean",
        target_q="min" if f.set("cfg_q_agg") else "mean",
        alpha=f.set("cfg_alpha"),
        normalize_q=bool(f.set("cfg_normalize_q_loss")),
        candidates=1,
        max_grad_norm=None,
    )
    state = algo.init(base, env_spec(base))
    for part, module in PARTS.items():
        toys_q.load(module(state), weights(f, part, dtype=dtype))
    batch = transitions(
        *(f.tensor(k, dtype) for k in ("observations", "actions", "rewards", "next_observations", "masks"))
    )
    given = Given(f.tensor("draw.t").flatten(), f.tensor("draw.x0", dtype)[:, None])
    state.policy.config = replace(state.policy.config, objective=given)
    return algo, state, batch


def noise(f: Fixture, name: str, dtype=torch.float64):
    return f.tensor(f"draw.{name}", dtype)[:, None, None]


@pytest.mark.parametrize(("dtype", "out", "tolerance"), PRECISIONS)
def test_networks_and_samples(shared_data, dtype, out, tolerance):
    f = Fixture(shared_data, NAMES[0])
    _, state, batch = setup(f, dtype)
    context = state.policy.encode(batch.obs)
    with torch.no_grad():
        for name, critic in (("q_values", state.critic), ("target_q_values", state.target)):
            close(critic(context.features, batch.action), f.tensor(f"{out}.{name}"), tolerance)
        act = noise(f, "act_noise", dtype)
        for name, policy in (("onestep_action", state.student), ("euler_action", state.policy)):
            sample = propose(policy, policy.context(context.features), act[:, None])[:, 0, 0]
            close(sample, f.tensor(f"{out}.{name}"), tolerance)
        velocity = state.policy.predict(context, batch.action, state.policy.config.objective.t)
        close(velocity[:, 0], f.tensor(f"{out}.bc_flow_velocity"), tolerance)


@pytest.mark.parametrize(("dtype", "out", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_losses(shared_data, name, dtype, out, tolerance):
    f = Fixture(shared_data, name)
    algo, state, batch = setup(f, dtype)
    order = torch.arange(2)
    loss, parts = algo.actor_loss(state, batch, noise(f, "distill_noise", dtype), order, torch.Generator())
    found = {"actor_loss": loss, "bc_flow_loss": parts["bc_loss"], "q_loss": parts["q_loss"]}
    for key, value in (found | {"distill_loss": parts["distill_loss"]}).items():
        assert value.item() == pytest.approx(f.tensor(f"{out}.actor.{key}").item(), rel=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_policy_step(shared_data, name):
    f = Fixture(shared_data, name)
    algo, state, batch = setup(f)
    algo.actor_step(state, batch, noise(f, "distill_noise"), torch.arange(2), torch.Generator())
    assert all(p.grad is None for p in state.critic.parameters())
    for part in ("modules_actor_bc_flow", "modules_actor_onestep_flow"):
        assert errors(PARTS[part](state), weights(f, part, "out64.grad_actor_loss"), grad=True) < 1e-9
        assert errors(PARTS[part](state), weights(f, part, "out64.after")) < 1e-8


@pytest.mark.parametrize("name", NAMES)
def test_critic_step(shared_data, name):
    f = Fixture(shared_data, name)
    algo, state, batch = setup(f)
    metrics = algo.critic_step(state, batch, noise(f, "critic_next_noise")[:, None])
    assert metrics["critic_loss"].item() / 2 == pytest.approx(f.tensor("out64.critic.critic_loss").item(), rel=1e-9)
    grads = weights(f, "modules_critic", "out64.grad_critic_loss")
    assert errors(state.critic, {k: 2 * v for k, v in grads.items()}, grad=True) < 1e-9
    # Adam divides by |gradient| + 1e-8, so a factor of 2 in the loss shows where gradients are small.
    assert errors(state.critic, weights(f, "modules_critic", "out64.after")) < 1e-5
    algo.follow(state)
    before, after = weights(f, "modules_critic"), weights(f, "modules_target_critic", "out64.after")
    moved = {k: after[k] + algo.tau * (v.detach() - before[k]) for k, v in state.critic.named_parameters()}
    assert errors(state.target, moved) < 1e-9
