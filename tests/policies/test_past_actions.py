"""A policy that denoises past actions too is one with a longer horizon whose first actions are left out."""

import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies import Stochastic

from .toys import generator, observe, tiny

PAST, HORIZON = 2, 3


def pair(kind: str = "ddpm"):
    """The policy, and the one that sees the same latents as a plain, longer chunk."""
    policy = tiny(kind, past_actions=PAST)
    plain = tiny(kind, horizon=PAST + HORIZON)
    plain.network.load_state_dict(policy.network.state_dict())
    return policy, plain


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_chunks_begin_with_the_current_action(kind):
    policy, plain = pair(kind)
    obs = observe(policy)
    noise = plain.noise(4, generator())
    assert policy.noise_shape == plain.noise_shape
    action = policy.act(obs, noise.roll(-PAST, 2))
    assert action.shape == (4, HORIZON, 2)
    assert torch.equal(action, plain.act(obs, noise)[:, PAST:])


def test_chains_and_their_likelihood_hold_past_actions_behind_the_others():
    policy, plain = pair()
    tuned, longer = policy.split(4), plain.split(4)
    noise, explore = plain.noise(4, generator(), steps=True), Stochastic()
    obs = observe(policy)
    chain = tuned.sample(tuned.encode(obs), noise.roll(-PAST, 2), start=tuned.first_tuned, stochastic=explore)
    same = longer.sample(longer.encode(obs), noise, start=longer.first_tuned, stochastic=explore)
    assert torch.equal(chain.x.roll(PAST, 2), same.x)
    scored = tuned.score(tuned.encode(obs), chain, explore)
    assert torch.allclose(scored, chain.log_prob, rtol=0, atol=1e-12)
    assert torch.equal(scored.roll(PAST, 2), longer.score(longer.encode(obs), same, explore))


def test_the_loss_is_that_of_the_longer_chunk():
    policy, plain = pair()
    g = generator()
    data, noise = (torch.randn(6, PAST + HORIZON, 2, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.arange(6, dtype=torch.float64) / 20
    obs = observe(policy, 6)
    loss = policy.loss(policy.encode(obs), data.roll(-PAST, 1), t, noise.roll(-PAST, 1))
    assert torch.allclose(loss, plain.loss(plain.encode(obs), data, t, noise), rtol=0, atol=1e-14)


def test_there_are_none_before_the_past():
    with pytest.raises(UserError, match="past_actions must be at least 0, got -1"):
        tiny(past_actions=-1)
