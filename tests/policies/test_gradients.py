"""Gradients through chains and scores against finite differences (float64)."""

import pytest
import torch

from noisepilot.policies import CosinePath, Stochastic

from .toys import KINDS, generator, jolt, observe, tiny

STEP = 1e-6


def direction(parameters, seed: int):
    g = generator(seed)
    return [torch.randn(p.shape, generator=g, dtype=torch.float64) for p in parameters]


def slope(function, parameters, towards) -> float:
    """Central difference of a number along a direction in the weights."""
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, v in zip(parameters, towards, strict=True):
                p += sign * STEP * v
            values.append(function().item())
            for p, v in zip(parameters, towards, strict=True):
                p -= sign * STEP * v
    return (values[0] - values[1]) / (2 * STEP)


def assert_gradient(function, parameters) -> None:
    parameters = list(parameters)
    function().backward()
    for seed in range(3):
        towards = direction(parameters, seed)
        expected = sum((p.grad * v).sum().item() for p, v in zip(parameters, towards, strict=True))
        assert abs(expected) > 1e-6
        assert slope(function, parameters, towards) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_of_a_chain(kind):
    explore = Stochastic()
    policy = tiny(kind, steps=4).split(3)
    obs = observe(policy)
    with torch.no_grad():
        noise = policy.noise(4, generator(), steps=True)
        chain = policy.sample(policy.encode(obs), noise, start=1, stochastic=explore)
    jolt(policy.network)  # away from the policy that drew the chain
    weight = torch.randn(4, 3, 3, 2, generator=generator(2), dtype=torch.float64)
    assert_gradient(
        lambda: (policy.score(policy.encode(obs), chain, explore) * weight).mean(), policy.network.parameters()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_training_loss(kind):
    policy = tiny(kind)
    g = generator()
    t = policy.config.path.draw_t(4, g, torch.device("cpu"))
    data, noise = torch.randn(2, 4, 3, 2, generator=g, dtype=torch.float64)
    obs = observe(policy)
    assert_gradient(lambda: policy.loss(policy.encode(obs), data, t, noise).mean(), policy.network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_final_action_with_respect_to_noise(kind):
    policy = tiny(kind, steps=3, n_obs_steps=1)
    context = policy.encode(observe(policy, 2))
    context = type(context)(context.features.detach(), context.condition.detach())
    noise = 0.7 * policy.noise(2, generator(4))
    noise.requires_grad_()
    assert torch.autograd.gradcheck(lambda n: policy.sample(context, n).action, noise)


@pytest.mark.parametrize("kind", KINDS)
def test_training_loss_by_hand(kind):
    policy = tiny(kind)
    g = generator()
    data, noise = torch.randn(2, 4, 3, 2, generator=g, dtype=torch.float64)
    level = torch.tensor([0, 5, 13, 19])
    t = level.double() / 20
    if kind.startswith("flow"):
        alpha, shown = t, t
    else:
        alpha, shown = torch.from_numpy(CosinePath(20).alpha_bar()[19 - level.numpy()] ** 0.5), 19 - level.double()
    sigma = 1 - alpha if kind.startswith("flow") else (1 - alpha**2).sqrt()
    target = {"eps": noise, "data": data, "velocity": data - noise}[policy.config.predicts]
    context = policy.encode(observe(policy))
    x = alpha[:, None, None] * data + sigma[:, None, None] * noise
    output = policy.network(x, policy.network.time_embedding(shown), context.condition)
    by_hand = ((output - target) ** 2).reshape(4, -1).mean(1)
    assert (policy.loss(context, data, t, noise) - by_hand).abs().max() < 1e-12
