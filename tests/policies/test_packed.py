"""Packed layers give the same chains, see changes of the weights between blocks, and keep gradients."""

import pytest
import torch

from noisepilot.policies.matmul import use_fast_matmul
from noisepilot.policies.packed import packed

from .toys import generator, observe, tiny


@pytest.fixture(autouse=True)
def fast_kernels():
    use_fast_matmul(True)
    yield
    use_fast_matmul(False)


def chain(policy, noise):
    with torch.no_grad():
        return policy.sample(policy.encode(observe(policy, 5)), noise).x


def test_blocks_follow_the_weights():
    policy = tiny(dtype=torch.float32)
    optimizer = torch.optim.AdamW(policy.network.parameters(), lr=0.1, fused=True)
    noise = policy.noise(5, generator())
    for _ in range(2):
        plain = chain(policy, noise)
        with packed(policy, 5):
            assert (chain(policy, noise) - plain).abs().max() < 1e-5
        for parameter in policy.network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert (chain(policy, noise) - plain).abs().max() > 1e-3


def test_gradients_pass_through_a_packed_network():
    layer = torch.nn.Linear(4, 4)
    with packed(layer, 3):
        layer(torch.ones(3, 4)).sum().backward()
    assert layer.weight.grad is not None
