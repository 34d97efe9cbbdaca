"""Physical units to [-1, 1] and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from noisepilot.errors import UserError
from noisepilot.policies import Normalizer
from noisepilot.spec import ArraySpec

from .toys import observe, tiny

D = 4
columns = arrays(np.float64, (6, D), elements=st.floats(-1e3, 1e3, width=32))


def normalizer(*names: str) -> Normalizer:
    return Normalizer({name: ArraySpec((D,)) for name in names or ("x",)}).double()


@settings(deadline=None, max_examples=100)
@given(columns)
def test_fitted_data_lie_in_the_unit_box_and_come_back(data):
    norm = normalizer()
    low, high = data.min(0), data.max(0)
    norm.fit("x", low, high)
    x = torch.from_numpy(data)
    inside = norm.normalize("x", x)
    assert inside.abs().max() <= 1 + 1e-9
    constant = torch.from_numpy(high - low < 1e-5)
    back = norm.denormalize("x", inside)
    assert torch.allclose(back[:, ~constant], x[:, ~constant], rtol=0, atol=1e-9)
    assert (inside[:, constant] == 0).all()
    assert torch.allclose(back[:, constant], torch.from_numpy(low)[constant].expand(6, -1), rtol=0, atol=1e-9)


def test_limits_by_hand():
    norm = normalizer()
    norm.fit("x", np.array([-2.0, 0, 5, 1]), np.array([2.0, 1, 5, 3]))
    corners = torch.tensor([[-2.0, 0, 5, 1], [2.0, 1, 5, 3], [0.0, 0.5, 7, 2]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, -1, 0, -1], [1.0, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.float64)
    assert (norm.normalize("x", corners) - expected).abs().max() < 2e-6
    outside = norm.normalize("x", corners * 3)
    assert outside[1, 0] > 2.9  # never clipped


def test_gaussian():
    norm = normalizer()
    norm.fit_gaussian("x", np.array([1.0, 2, 3, 4]), np.array([2.0, 0.5, 0.0, 1e-9]))
    x = torch.tensor([[3.0, 1.5, 9, 4]], dtype=torch.float64)
    assert norm.normalize("x", x).tolist() == [[1, -1, 0, 0]]
    back = norm.denormalize("x", torch.tensor([[1.0, -1, 5, 5]], dtype=torch.float64))
    assert back.tolist() == [[3, 1.5, 3, 4]]


def test_observations_are_taken_in_any_precision():
    policy = tiny(dtype=torch.float32)
    obs = {k: v.double() for k, v in observe(policy).items()}
    assert policy.encode(obs).features.dtype == torch.float32


def test_each_name_has_its_own():
    norm = normalizer("a.b", "c")
    norm.fit("a.b", -np.ones(D), np.ones(D))
    with pytest.raises(UserError, match="normaliser of 'c' is missing"):
        norm.require_fitted()
    norm.fit("c", np.zeros(D), np.ones(D))
    norm.require_fitted()
    assert norm.normalize("a.b", torch.zeros(D)).tolist() == pytest.approx([0] * D, abs=1e-6)
    assert norm.normalize("c", torch.zeros(D)).tolist() == [-1] * D


def test_unfitted_names_the_array():
    with pytest.raises(UserError, match=r"normaliser of 'a\.b' is missing"):
        normalizer("a.b").require_fitted()


@pytest.mark.parametrize("high", [np.ones(D + 1), np.full(D, np.nan), np.full(D, np.inf)])
def test_bad_statistics_are_refused(high):
    with pytest.raises(UserError, match="normaliser of 'x' needs finite values of shape"):
        normalizer().fit("x", np.zeros(len(high)), high)
