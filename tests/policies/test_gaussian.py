"""The squashed Gaussian against torch.distributions, and the actor made of one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from noisepilot.config import from_dict, to_dict
from noisepilot.errors import UserError
from noisepilot.policies.actor import Actor
from noisepilot.policies.gaussian import GaussianConfig, GaussianMLP
from noisepilot.spec import ArraySpec, PolicySpec

from .toys import generator

SMALL = GaussianMLP((8, 8), "tanh", "before")
SPEC = PolicySpec({"state": ArraySpec((3,)), "goal": ArraySpec((2,))}, ArraySpec((2,)), 4, 4, n_obs_steps=2)


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def actor(**changes):
    torch.manual_seed(0)
    made = GaussianConfig(SMALL, **changes).build(SPEC)
    made.normalizer.set("state", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 0.5]))
    made.normalizer.set("goal", np.zeros(2), np.ones(2))
    made.normalizer.set("action", np.array([0.5, -0.5]), np.array([2.0, 3.0]))
    return made.double()


@pytest.mark.parametrize("layer_norm", ["none", "before", "after"])
def test_log_prob(layer_norm):
    net = replace(SMALL, layer_norm=layer_norm).build(5, 3).double()
    features, eps = draws(50, 5), draws(50, 3, seed=2)
    action, log_prob = net.sample(features, eps)
    mean, log_std = net(features)
    base = Independent(Normal(mean, log_std.exp()), 1)
    theirs = TransformedDistribution(base, TanhTransform(cache_size=1))
    u = mean + log_std.exp() * eps
    torch.testing.assert_close(action, u.tanh())
    torch.testing.assert_close(log_prob, theirs.log_prob(theirs.transforms[0](u)), rtol=0, atol=1e-10)


def test_log_prob_where_tanh_has_lost_its_digits():
    net = replace(SMALL, log_std_range=(0.0, 0.0)).build(1, 1).double()
    eps = torch.tensor([[30.0]], dtype=torch.float64)
    u = net(torch.zeros(1, 1, dtype=torch.float64))[0] + eps
    _, log_prob = net.sample(torch.zeros(1, 1, dtype=torch.float64), eps)
    exact = -450 - 0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - u.item())  # log(1 - tanh(u)^2) -> 2 (log 2 - u)
    assert log_prob.item() == pytest.approx(exact, abs=1e-9)


def test_log_std_is_clamped():
    net = replace(SMALL, log_std_range=(-1.0, -0.5)).build(5, 3)
    net.trunk[-1].get_parameter("bias").data[3:] = torch.tensor([-9.0, 0.0, 9.0])
    log_std = net(torch.zeros(1, 5))[1]
    assert log_std.min() == -1.0
    assert log_std.max() == -0.5


def test_zero_gain_begins_at_the_middle():
    net = replace(SMALL, last_gain=0.0).build(5, 3)
    assert net.mode(torch.randn(9, 5)).abs().max() == 0


def test_acts_in_physical_units():
    assert isinstance(actor(), Actor)
    obs = {"goal": draws(6, 2, 2), "state": draws(6, 2, 3)}
    features = torch.cat([((obs["state"] - torch.tensor([1.0, 2, 3])) / torch.tensor([1, 2, 0.5])).flatten(1),
                          obs["goal"].flatten(1)], 1)  # fmt: skip
    mode = actor().act(obs)
    expected = actor().network.mode(features).view(6, 4, 2) * torch.tensor([2.0, 3]) + torch.tensor([0.5, -0.5])
    torch.testing.assert_close(mode, expected)
    noise = draws(6, 1, 4, 2)
    assert torch.equal(actor().act(obs, noise), mode)
    sampler = actor(sample=True)
    assert (sampler.act(obs, noise) - mode).abs().max() > 1e-3
    assert torch.equal(sampler.act(obs, noise), sampler.act(obs, noise))
    assert torch.equal(sampler.act(obs, generator=generator(3)), sampler.act(obs, generator=generator(3)))
    with pytest.raises(UserError, match="observation 'goal' is missing"):
        actor().act({"state": obs["state"]})


def test_configuration_rebuilds_it():
    first = actor(sample=True)
    second = from_dict(to_dict(first.config)).build(from_dict(to_dict(first.spec))).double()
    assert second.hash() != first.hash()
    second.load_state_dict(first.state_dict())
    assert second.hash() == first.hash()
