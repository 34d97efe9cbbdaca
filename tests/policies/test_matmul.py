"""The switch to the fast kernel: reversible, and never at the cost of accuracy."""

import pytest
import torch

from noisepilot.policies.matmul import use_fast_matmul


@pytest.fixture(autouse=True)
def _precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_a_given_decision_is_kept():
    assert use_fast_matmul(True) is True
    assert torch.get_float32_matmul_precision() == "medium"
    assert use_fast_matmul(False) is False
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("before", [True, False])
def test_the_probe_leaves_what_it_decided(before):
    use_fast_matmul(before)
    decision = use_fast_matmul()
    assert torch.get_float32_matmul_precision() == ("medium" if decision else "highest")


def test_whatever_the_probe_decides_is_float32():
    use_fast_matmul()
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    error = ((a @ b).double() - a.double() @ b.double()).abs().max().item()
    assert error < 1e-4  # bfloat16's is 0.1
