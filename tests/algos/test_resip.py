"""ResiP: the loss by hand, files, and that it corrects a base that is wrong."""

import pytest
import torch

from noisepilot.algos.audit import audit_start
from noisepilot.algos.resip import ResiP, Rows
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.rollout import Collector
from noisepilot.policies.normal import NormalMLP, ValueMLP

from ..policies.toys import generator, jolt, observe
from .toys_bandit import fork, lopsided
from .toys_wrapped import base, comes_back, line

TINY = ResiP(network=NormalMLP((16,)), critic=ValueMLP((16,)), epochs=3, minibatch=16)


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
    decisions = TINY.prepare(state, rollout, torch.Generator())
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


def test_a_corrected_policy_loads_without_flags(tmp_path):
    actor = TINY.init(base("ddpm")).actor
    jolt(actor.network)
    comes_back(actor, tmp_path)


def test_refusals():
    for build in (lambda: ResiP(scale=0.0).init(base()), lambda: ResiP(scale=0.0).wrap(base(), line(), generator())):
        with pytest.raises(UserError, match="scale") as error:
            build()
        assert "\n" not in str(error.value)
