"""The official IFQL's losses, gradients, best of N and one update, number by number.

Official quirk: the target takes up the critic as it was before its step, which ours does not.
"""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.idql import IDQL
from noisepilot.policies import MLP, LinearPath, PolicyConfig, Sampler
from noisepilot.policies.best_of import BestOf, BestOfConfig
from noisepilot.policies.critic import QMLP
from noisepilot.policies.objective import Matching

from ..policies.parity import Fixture
from ..policies.test_parity_dppo import close
from . import toys_q
from .toys_q import Given, env_spec, errors, flax_critic, flax_flow, make, transitions

PARTS = {
    "modules_actor_flow": lambda state: state.policy.network,
    "modules_critic": lambda state: state.critic,
    "modules_target_critic": lambda state: state.target,
    "modules_value": lambda state: state.value,
}


def weights(f: Fixture, part: str, prefix: str = "w", dtype=torch.float64):
    return flax_flow(f, part, prefix, 3, dtype) if "actor" in part else flax_critic(f, part, prefix, dtype)


def setup(f: Fixture, dtype=torch.float64):
    network = MLP(f.set("cfg_actor_hidden_dims"), time_dim=0, activation="gelu", residual=False)
    sampler = Sampler(10, eta=0.0, clip_data=None)
    config = PolicyConfig(network, LinearPath(), sampler, "velocity", horizon=1, n_action_steps=1)
    base = make(config, 9, 3, dtype)
    critic = QMLP(f.set("cfg_value_hidden_dims"), "gelu", 2, "after")
    algo = IDQL(expectile=f.set("cfg_expectile"), critic=critic, average=False, candidates=f.set("cfg_num_samples"))
    state = algo.init(base, env_spec(base))
    for part, module in PARTS.items():
        toys_q.load(module(state), weights(f, part, dtype=dtype))
    batch = transitions(
        *(f.tensor(k, dtype) for k in ("observations", "actions", "rewards", "next_observations", "masks"))
    )
    given = Given(f.tensor("draw.t").flatten(), f.tensor("draw.x0", dtype)[:, None])
    state.policy.config = replace(state.policy.config, objective=given)
    return algo, state, batch


@pytest.mark.parametrize(
    ("dtype", "out", "tolerance"), [(torch.float64, "out64", 1e-9), (torch.float32, "out32", 1e-4)]
)
def test_losses(shared_data, dtype, out, tolerance):
    f = Fixture(shared_data, "ifql")
    algo, state, batch = setup(f, dtype)
    assert state.value is not None
    close(state.value(state.policy.encode(batch.obs).features)[0].detach(), f.tensor(f"{out}.v_values"), tolerance)
    found = algo.critic_step(state, batch) | algo.policy_step(state, batch, torch.Generator())
    for ours, theirs in (
        ("value_loss", "value.value_loss"),
        ("critic_loss", "critic.critic_loss"),
        ("bc_loss", "actor.actor_loss"),
    ):
        assert found[ours].item() == pytest.approx(f.tensor(f"{out}.{theirs}").item(), rel=tolerance)


def test_update(shared_data):
    f = Fixture(shared_data, "ifql")
    algo, state, batch = setup(f)
    algo.critic_step(state, batch)
    algo.policy_step(state, batch, torch.Generator())
    for part, loss in (("modules_value", "value"), ("modules_critic", "critic"), ("modules_actor_flow", "actor")):
        assert errors(PARTS[part](state), weights(f, part, f"out64.grad_{loss}_loss"), grad=True) < 1e-9
        assert errors(PARTS[part](state), weights(f, part, "out64.after")) < 1e-8
    algo.follow(state)
    before, after = weights(f, "modules_critic"), weights(f, "modules_target_critic", "out64.after")
    moved = {k: after[k] + algo.tau * (v.detach() - before[k]) for k, v in state.critic.named_parameters()}
    assert errors(state.target, moved) < 1e-9


def test_best_of_n(shared_data):
    f = Fixture(shared_data, "ifql")
    _, state, batch = setup(f)
    candidates = f.tensor("draw.candidates")
    plain = replace(state.policy.config, objective=Matching())
    config = BestOfConfig(plain, state.critic.config, candidates.shape[1])
    actor = BestOf(config, state.policy, state.critic)
    with torch.no_grad():
        context = state.policy.encode({"state": batch.obs["state"][: len(candidates)]})
        close(actor.choose(context, candidates[:, :, None])[:, 0], f.tensor("out64.best_of_n_action"), 1e-9)
