"""The official ResiP's residual policy, number by number (float64): actions, likelihoods, values, gradients, start."""

import numpy as np
import pytest
import torch

from noisepilot.policies.normal import NormalMLP, ValueMLP

from .parity import Fixture

POLICIES = ["resip_policy_config", "resip_policy_class_defaults"]
STARTS = ["resip_init_stats_config", "resip_init_stats_class_defaults"]


def close(ours, theirs, tolerance=1e-10):
    theirs = theirs.double().reshape(ours.shape)
    scale = theirs.abs().max().clamp(min=1e-12)
    assert ((ours.detach().double() - theirs).abs().max() / scale).item() < tolerance


def networks(f: Fixture):
    hidden = (f.set("hidden"),) * f.set("layers")
    activation = "silu" if f.set("silu") else "relu"
    actor = NormalMLP(hidden, activation, f.set("init_logstd"), bool(f.set("learn_std")), f.set("action_head_std"))
    critic = ValueMLP(hidden, activation, f.set("critic_last_layer_std"), f.set("critic_last_layer_bias_const"))
    features = f.set("obs_dim") + f.set("act_dim")
    return actor.build(features, f.set("act_dim")), critic.build(features)


def theirs(name: str, part: str) -> str:
    return "actor_logstd" if name == "log_std" else name.replace("trunk", part)


@pytest.mark.parametrize("name", POLICIES)
def test_policy(shared_data, name):
    f = Fixture(shared_data, name)
    actor, critic = networks(f)
    for module, part in ((actor.double(), "actor_mean"), (critic.double(), "critic")):
        for key, parameter in module.named_parameters():
            parameter.data.copy_(f.tensor(f"w.net.{theirs(key, part)}").reshape(parameter.shape))
    x = f.tensor("nobs")
    action, log_prob = actor.sample(x, f.tensor("noise"))
    given, value, mean = actor.log_prob(x, f.tensor("given_action")), critic(x), actor.mode(x)
    for ours, key in (
        (action, "action"),
        (log_prob, "logprob"),
        (actor.entropy().expand(8), "entropy"),
        (value, "value"),
        (mean, "mean"),
        (given, "given_logprob"),
        (f.set("action_scale") * mean, "eval_action_scaled"),
    ):
        close(ours, f.tensor(f"out64.{key}"))
    imitation = (mean - f.tensor("gt_residual") / f.set("action_scale")).square().mean()
    close(imitation, f.tensor("out64.bc_loss"))
    (given.mean() + value.mean() + imitation).backward()
    for module, part in ((actor, "actor_mean"), (critic, "critic")):
        for key, parameter in module.named_parameters():
            close(parameter.grad, f.tensor(f"out64.grad.net.{theirs(key, part)}"))


@pytest.mark.parametrize("name", STARTS)
def test_start(shared_data, name):
    """Every weight of the same spread, and the last layers' singular values exactly their gains."""
    f = Fixture(shared_data, name)
    torch.manual_seed(0)
    drawn = [networks(f) for _ in range(5)]
    for which, part in ((0, "actor_mean"), (1, "critic")):
        for key, first in drawn[0][which].named_parameters():
            w = torch.stack([dict(pair[which].named_parameters())[key] for pair in drawn]).detach()
            mean, std, _, top, bottom = f.tensor(f"out.init_mean_std_absmax_svmax_svmin.{theirs(key, part)}").tolist()
            assert w.std().item() == pytest.approx(std, rel=0.03, abs=1e-9)
            assert w.mean().item() == pytest.approx(mean, abs=2e-3)
            if ".4." in key and first.dim() == 2:
                values = torch.linalg.svdvals(w)
                np.testing.assert_allclose([values.max(), values.min()], [top, bottom], atol=1e-6)


def test_a_correction_begins_at_exactly_zero():
    actor = NormalMLP((8, 8)).build(5, 3)
    assert (actor.mode(torch.randn(7, 5)) == 0).all()
    assert not actor.log_std.requires_grad
    assert sum(p.requires_grad for p in actor.parameters()) == 5  # three weights, two biases
