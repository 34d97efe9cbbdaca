"""Policy Decorator: exploration, critics, files, and that it corrects a base that is wrong."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.decorator import PolicyDecorator, ResidualQ
from noisepilot.algos.residual_env import ResidualEnv
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.policies.critic import QMLP
from noisepilot.policies.gaussian import GaussianMLP

from ..policies.toys import generator, jolt, observe
from .toys_bandit import fork, lopsided, train
from .toys_wrapped import base, comes_back, line

SMALL = GaussianMLP((32, 32), "relu", last_gain=0.01)


def test_policy_decorator_corrects_a_base():
    torch.manual_seed(0)
    algo = PolicyDecorator(
        actor=SMALL, critic=QMLP((32, 32), "relu"), scale=0.5, explore_steps=400, warmup=100, batch=64
    )
    algo = replace(algo, actor_lr=2e-3, critic_lr=2e-3, alpha_lr=2e-3, utd=0.5, alpha=0.1, target_entropy=-2.0)
    policy, env, g = lopsided(), fork(), generator()
    wrapped = algo.wrap(policy, env, g)
    state = algo.init(policy, wrapped.spec)
    train(algo, state, wrapped, 2000, g)
    assert evaluate(state.actor, fork(), range(40)).returns.mean() > -0.5


def test_exploration_is_switched_on_little_by_little():
    policy = base()
    algo = PolicyDecorator(actor=SMALL, explore_steps=1000, warmup=500)
    env = algo.wrap(policy, line(), generator())
    assert isinstance(env, ResidualEnv)
    state, g = algo.init(policy, env.spec), generator()
    obs = {**observe(policy, 200), "base_action": torch.zeros(200, 2, 2)}
    shares, largest = [], []
    for _ in range(6):
        u, extras = algo.act(state, obs, g)
        assert extras["action"] is u
        shares.append(u.any(2).float().mean().item())
        largest.append(u.abs().max().item())
    assert shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0], abs=0.1)
    assert largest[0] == 0
    assert max(largest) <= 1


@pytest.mark.parametrize("sees", ["sum", "both"])
def test_critics_see_the_executed_action_or_both_parts(sees):
    policy = base()
    algo = PolicyDecorator(actor=SMALL, critic=QMLP((16,), "relu"), critic_sees=sees, scale=0.2)
    state = algo.init(policy, algo.wrap(policy, line(), generator()).spec)
    assert isinstance(state.q, ResidualQ)
    features, u = torch.randn(5, 8), torch.rand(5, 1, 2)
    moved = features.clone()
    moved[:, -2:] += 0.2 * u[:, 0]
    same = torch.allclose(state.q(features, u), state.q(moved, 0 * u), atol=1e-6)
    assert same == (sees == "sum")


def test_a_corrected_policy_loads_without_flags(tmp_path):
    actor = PolicyDecorator(actor=SMALL).init(base("ddpm"), line().spec).actor
    jolt(actor.network)
    comes_back(actor, tmp_path)


def test_refusals():
    with pytest.raises(UserError, match="explore_steps") as error:
        PolicyDecorator(explore_steps=-1)
    assert "\n" not in str(error.value)
