"""Behaviour cloning: schedule, average, and what one step does."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.algos.bc import BC, denoising_loss
from noisepilot.algos.ema import average_of, update_average
from noisepilot.errors import UserError

from ..policies.toys import generator, observe, tiny
from .toys import weights


def test_learning_rate_by_hand():
    bc = BC(grad_steps=100, lr=1.0, lr_final=0.2, warmup=0.1)
    assert [bc.learning_rate(k) for k in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert bc.learning_rate(10) == pytest.approx(1.0)
    assert bc.learning_rate(55) == pytest.approx(0.6)  # half of the cosine
    assert bc.learning_rate(32) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 22 / 90)) / 2)
    assert bc.learning_rate(100) == pytest.approx(0.2)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000), st.floats(0, 0.5))
def test_learning_rate_rises_then_falls(steps, warmup):
    bc = BC(grad_steps=steps, warmup=warmup)
    rates = [bc.learning_rate(k) for k in range(steps)]
    peak = max(1, round(warmup * steps)) - 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < min(rates) <= max(rates) <= bc.lr * (1 + 1e-12)


def test_average_by_hand():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 1.0)
    average = average_of(network)
    torch.nn.init.constant_(network.weight, 2.0)
    update_average(average, network, 0.75)
    assert average.weight.item() == 1.25
    assert not average.weight.requires_grad
    assert network.weight.item() == 2


def test_average_follows_its_warm_up():
    """Updated after steps 2, 4, 6 with decays 2/11, 3/12 and, capped, 0.26."""
    policy = tiny()
    bc = BC(grad_steps=6, batch=4, ema_decay=0.26, ema_every=2, lr=1e-2)
    state, g = bc.init(policy), generator()
    average = [p.detach().clone() for p in policy.network.parameters()]
    for step in range(1, 7):
        bc.update(state, observe(policy), torch.zeros(4, 3, 2, dtype=torch.float64), g)
        if step % 2 == 0:
            decay = {2: 2 / 11, 4: 3 / 12, 6: 0.26}[step]
            average = [
                decay * a + (1 - decay) * p.detach() for a, p in zip(average, policy.network.parameters(), strict=True)
            ]
        for a, expected in zip(state.average.parameters(), average, strict=True):
            assert (a - expected).abs().max() < 1e-12
    averaged, noise = state.averaged(), policy.noise(4, generator())
    assert averaged.network is state.average
    assert not torch.allclose(averaged.act(observe(policy), noise), policy.act(observe(policy), noise))


def test_loss_is_that_of_normalised_data():
    policy = tiny()
    action = torch.randn(4, 3, 2, generator=generator(5), dtype=torch.float64)
    loss = denoising_loss(policy, observe(policy), action, generator(3))
    g = generator(3)
    t = policy.config.path.draw_t(4, g, torch.device("cpu"))
    noise = torch.randn(4, 3, 2, generator=g, dtype=torch.float64)
    data = policy.normalizer.normalize("action", action)
    assert (loss == policy.loss(policy.encode(observe(policy)), data, t, noise)).all()


def test_same_seed_same_weights():
    def trained(seed: int):
        policy = tiny()
        state, g = BC(grad_steps=3, batch=4).init(policy), generator(seed)
        for _ in range(3):
            BC(grad_steps=3).update(state, observe(policy), torch.zeros(4, 3, 2, dtype=torch.float64), g)
        return weights(policy.network)

    assert (trained(0) == trained(0)).all()
    assert not (trained(0) == trained(1)).all()


def test_an_unfitted_policy_is_refused():
    policy = tiny()
    policy.normalizer.get_buffer("center_action").fill_(torch.nan)
    with pytest.raises(UserError, match="normaliser of 'action'"):
        BC().init(policy)
