"""The fast Mish and GELU against PyTorch's, where gradients are taken and where they are not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu, mish

from noisepilot.policies import activation as module
from noisepilot.policies.activation import GELU, Mish, activation

FAR = [0.0, -0.0, 19.99, 20.01, 40.0, -40.0, 1e3, -1e3, 1e30, -1e30]


@pytest.fixture(autouse=True, scope="module")
def fast_also_where_small():
    large, module.LARGE = module.LARGE, 0
    yield
    module.LARGE = large


def value_and_slope(function, x: torch.Tensor):
    x = x.clone().requires_grad_()
    y = function(x)
    y.sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@settings(deadline=None, max_examples=200)
@given(st.floats(-60, 60))
def test_equals_pytorch(x):
    x = torch.tensor([x], dtype=torch.float64)
    (y, slope), (expected, expected_slope) = value_and_slope(Mish(), x), value_and_slope(mish, x)
    assert (y - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)
    assert (slope - expected_slope).abs() <= 1e-12
    with torch.no_grad():
        assert (Mish()(x) - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)
        assert (GELU()(x) - gelu(x, approximate="tanh")).abs() <= 1e-12 * x.abs().clamp(min=1)


def test_gradcheck():
    x = torch.linspace(-30, 30, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Mish(), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("x", FAR)
def test_far_out_it_stays_finite_and_right(x, dtype):
    """Beyond any sensible activation: the identity on the right, nothing on the left."""
    y, slope = value_and_slope(Mish(), torch.tensor([x], dtype=dtype))
    expected, expected_slope = value_and_slope(mish, torch.tensor([x], dtype=torch.float64))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert y.double().item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    assert slope.double().item() == pytest.approx(expected_slope.item(), abs=tolerance)
    with torch.no_grad():
        assert GELU()(torch.tensor([x], dtype=dtype)).item() == pytest.approx(max(x, 0.0), rel=1e-6, abs=1e-6)


def test_nan_and_second_use_of_a_graph():
    y, slope = value_and_slope(Mish(), torch.tensor([float("nan"), 1.0]))
    assert y.isnan().tolist() == slope.isnan().tolist() == [True, False]


def test_names():
    assert isinstance(activation("mish"), Mish)
    assert isinstance(activation("relu"), torch.nn.ReLU)
