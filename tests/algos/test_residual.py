"""ResiP and Policy Decorator: losses by hand, exploration, files, and that both correct a base that is wrong."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.audit import audit_start
from noisepilot.algos.black_box import Remote
from noisepilot.algos.residual import PolicyDecorator, ResidualQ, ResiP, Rows
from noisepilot.algos.residual_env import ResidualEnv
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.rollout import Collector
from noisepilot.policies import load_policy, save_policy
from noisepilot.policies.critic import QMLP
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.policies.normal import NormalMLP, ValueMLP

from ..policies.toys import generator, jolt, observe
from .toys_bandit import Fork, fork, train
from .toys_wrapped import base, line

SMALL = GaussianMLP((32, 32), "relu", last_gain=0.01)
TINY = ResiP(network=NormalMLP((16,)), critic=ValueMLP((16,)), epochs=3, minibatch=16)


def lopsided() -> Remote:
    """A base that is 0.3 off to the right, whatever it sees."""
    spec = Fork().spec
    return Remote(lambda obs, noise: 0.6 * obs["state"][:, -1:].repeat(2, 1) + 0.3, spec, (1, 2, 1))


def test_resip_corrects_a_base():
    torch.manual_seed(0)
    algo = ResiP(
        network=NormalMLP((32,)), scale=0.5, critic=ValueMLP((32,)), gamma=0.9, epochs=10, minibatch=256, actor_lr=3e-3
    )
    policy = lopsided()
    state, g = algo.init(policy), generator()
    before = evaluate(state.actor, fork(), range(40)).returns.mean()
    assert before == pytest.approx(evaluate(policy, fork(), range(40)).returns.mean())
    collector = Collector(algo.wrap(policy, fork(16), g), 1, 32, 0)
    for _ in range(12):
        rollout, *_ = collector.collect(lambda obs: algo.act(state, obs, g))
        algo.update(state, rollout, g)
    after = evaluate(state.actor, fork(), range(40)).returns.mean()
    assert before == pytest.approx(-1.2, abs=1e-3)
    assert after > -0.4


def test_policy_decorator_corrects_a_base():
    torch.manual_seed(0)
    algo = PolicyDecorator(SMALL, QMLP((32, 32), "relu"), scale=0.5, explore_steps=400, warmup=100, batch=64)
    algo = replace(algo, actor_lr=2e-3, critic_lr=2e-3, alpha_lr=2e-3, utd=0.5, alpha=0.1, target_entropy=-2.0)
    policy, env, g = lopsided(), fork(), generator()
    wrapped = algo.wrap(policy, env, g)
    state = algo.init(policy, wrapped.spec)
    train(algo, state, wrapped, 2000, g)
    assert evaluate(state.actor, fork(), range(40)).returns.mean() > -0.5


def test_the_untrained_resip_passes_the_step_0_gate():
    policy = base("ddpm")
    state, g = TINY.init(policy), generator()
    obs = observe(policy)
    audit_start(policy, state.actor, obs, g)
    assert state.actor.due() is None
    jolt(state.actor.network)
    with pytest.raises(UserError, match="step-0 gate"):
        audit_start(policy, state.actor, obs, g)


def test_resip_s_update():
    """Ratios are 1 before the first step (the update audits that), and the loss is PPO's."""
    policy = base()
    torch.manual_seed(0)
    state, g = TINY.init(policy), generator()
    collector = Collector(TINY.wrap(policy, line(), g), 2, 12, 0)
    rollout, *_ = collector.collect(lambda obs: TINY.act(state, obs, g))
    decisions = TINY.prepare(state, rollout)
    rows = TINY.minibatch_of(decisions, torch.arange(36))
    assert isinstance(rows, Rows)
    torch.testing.assert_close(TINY.log_ratio(state, rows), torch.zeros(36))
    jolt(state.actor.network, 0.02)
    network, kept = state.actor.network, decisions.extras
    new = torch.distributions.Normal(network.mode(kept["features"]), network.log_std.exp()).log_prob(kept["u"]).sum(1)
    ratio = (new - kept["log_prob"]).exp()
    a = (decisions.advantage - decisions.advantage.mean()) / (decisions.advantage.std() + 1e-8)
    expected = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
    torch.testing.assert_close(TINY.policy_loss(state, rows)[0], expected)
    jolt(state.actor.network, -0.02)
    metrics = TINY.update(state, rollout, g)
    assert metrics["entropy"] == pytest.approx(2 * (-1 + 1.4189385), abs=1e-5)
    assert state.iteration == 1


def test_exploration_is_switched_on_little_by_little():
    policy = base()
    algo = PolicyDecorator(SMALL, explore_steps=1000, warmup=500)
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
    algo = PolicyDecorator(SMALL, QMLP((16,), "relu"), critic_sees=sees, scale=0.2)
    state = algo.init(policy, algo.wrap(policy, line(), generator()).spec)
    assert isinstance(state.q, ResidualQ)
    features, u = torch.randn(5, 8), torch.rand(5, 1, 2)
    moved = features.clone()
    moved[:, -2:] += 0.2 * u[:, 0]
    same = torch.allclose(state.q(features, u), state.q(moved, 0 * u), atol=1e-6)
    assert same == (sees == "sum")


@pytest.mark.parametrize("kind", ["resip", "decorator"])
def test_a_corrected_policy_loads_without_flags(tmp_path, kind):
    policy = base("ddpm")
    decorator = PolicyDecorator(SMALL)
    actor = (TINY.init(policy) if kind == "resip" else decorator.init(policy, line().spec)).actor
    jolt(actor.network)
    save_policy(actor, tmp_path / "residual")
    again = load_policy(tmp_path / "residual", "cpu")
    ours, theirs = (evaluate(a, line(), range(6)).returns for a in (actor, again))
    assert (ours == theirs).all()
    assert again.hash() == actor.hash()


def test_refusals():
    for build, words in {
        (lambda: PolicyDecorator(explore_steps=-1)): "explore_steps",
        (lambda: ResiP(scale=0.0).init(base())): "scale",
        (lambda: ResiP(scale=0.0).wrap(base(), line(), generator())): "scale",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            build()
        assert "\n" not in str(error.value)
