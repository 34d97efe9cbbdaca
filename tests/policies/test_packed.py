"""Packed layers compute the same, and notice every change of their weights."""

import copy

import pytest
import torch
from noisepilot.algos.ema import update_average
from noisepilot.policies.packed import can_pack, pack
from torch import nn

needs_kernels = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


@pytest.fixture
def fast():
    """As after a probe that chose the fast kernels."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with torch.no_grad():
        yield
    torch.set_float32_matmul_precision(before)


def same(layer, x):
    exact = (x.double() @ layer.weight.double().T + layer.bias.double()).float()
    torch.testing.assert_close(pack(layer, len(x))(x), exact, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(pack(layer, len(x)).add(x, 2 * exact), 3 * exact, atol=5e-2, rtol=2e-2)


@needs_kernels
def test_every_change_is_noticed(fast):
    torch.manual_seed(0)
    layer, x = nn.Linear(32, 24), torch.randn(6, 32)
    same(layer, x)
    assert pack(layer, 6) is pack(layer, 6)
    same(layer, torch.randn(3, 32))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1.0, fused=True)
    for p in layer.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    same(layer, x)
    layer.load_state_dict(nn.Linear(32, 24).state_dict())
    same(layer, x)
    update_average(layer, nn.Linear(32, 24), 0.1)
    same(layer, x)
    layer.weight.data = torch.randn(24, 32)
    same(layer, x)
    layer.bias.data = torch.randn(24)
    same(layer, x)
    layer.weight = nn.Parameter(torch.randn(24, 32))
    same(layer, x)
    same(copy.deepcopy(layer), x)


def test_only_where_it_is_allowed(fast):
    assert can_pack(torch.zeros(2)) == torch.backends.mkldnn.is_available()
    assert not can_pack(torch.zeros(2, dtype=torch.float64))
    with torch.enable_grad():
        assert not can_pack(torch.zeros(2))
    torch.set_float32_matmul_precision("highest")
    assert not can_pack(torch.zeros(2))


@needs_kernels
@pytest.mark.parametrize("activation", ["relu", "mish"])
@pytest.mark.parametrize("residual", [True, False])
def test_a_chain(fast, activation, residual):
    from noisepilot.policies import MLP

    torch.manual_seed(0)
    network = MLP(hidden=(64, 64, 64), activation=activation, residual=residual).build(11, 4, 3)
    x, times, features = torch.randn(40, 4, 3), torch.randn(5, 16), torch.randn(40, 11)
    folded = network.fold(times, features)(2, x)
    plain = network(x, times[2].expand(40, -1), features)
    torch.testing.assert_close(folded, plain, atol=2e-2, rtol=2e-2)
