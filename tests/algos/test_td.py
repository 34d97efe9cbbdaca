"""Backups by hand."""

import pytest
import torch

from noisepilot.algos.replay import Experience
from noisepilot.algos.td import chunk_return, expectile_loss, td_loss
from noisepilot.policies.critic import aggregate

from ..policies.toys import generator

# Three decisions of up to three steps: whole, cut short by a time limit, ended for good after two.
BATCH = Experience(
    obs={},
    action=torch.zeros(3, 3, 1),
    reward=torch.tensor([[1.0, 2.0, 4.0], [1.0, 0.0, 0.0], [1.0, 2.0, 0.0]]),
    length=torch.tensor([3, 1, 2]),
    terminated=torch.tensor([False, False, True]),
    next_obs={},
)


def test_per_decision():
    reward, discount = chunk_return(BATCH, 0.5, per_step=False)
    assert reward.tolist() == [7.0, 1.0, 3.0]
    assert discount.tolist() == [0.5, 0.5, 0.0]


def test_per_step():
    reward, discount = chunk_return(BATCH, 0.5, per_step=True)
    assert reward.tolist() == [1 + 1 + 1, 1.0, 1 + 1]
    assert discount.tolist() == [0.125, 0.5, 0.0]  # truncation bootstraps after its one step, termination does not


@pytest.mark.parametrize("per_step", [False, True])
def test_the_scale_is_of_rewards_alone(per_step):
    plain, discount = chunk_return(BATCH, 0.5, per_step)
    scaled, same = chunk_return(BATCH, 0.5, per_step, 0.1)
    assert torch.allclose(scaled, 0.1 * plain)
    assert torch.equal(same, discount)


def test_one_step_is_the_same_either_way():
    single = BATCH.map(lambda v: v[:, :1] if v.dim() > 1 else v)
    single = Experience(**{**vars(single), "length": torch.ones(3, dtype=torch.long)})
    for ours, theirs in zip(chunk_return(single, 0.9, True), chunk_return(single, 0.9, False), strict=True):
        assert torch.equal(ours, theirs)


def test_aggregates():
    q = torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 8.0]])
    assert aggregate(q, "min").tolist() == [1.0, 2.0]
    assert aggregate(q[:2], "min").tolist() == [1.0, 2.0]
    assert aggregate(q, "mean").tolist() == [2.0, 5.0]
    assert aggregate(q[:2], "min2").tolist() == [1.0, 2.0]
    pairs = {tuple(aggregate(q, "min2", generator(i)).tolist()) for i in range(40)}
    assert pairs == {(1.0, 2.0), (1.0, 5.0), (2.0, 2.0)}


def test_td_loss_sums_over_members():
    q, target = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([2.0, 2.0])
    assert td_loss(q, target).item() == pytest.approx((1 + 0) / 2 + (4 + 4) / 2)


def test_the_expectile_is_its_minimum():
    values = torch.randn(4_000, generator=generator(), dtype=torch.float64)
    v = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        v.data -= torch.autograd.grad(expectile_loss(values - v, 0.9), v)[0]
    above, below = (values - v).clamp(min=0).mean(), (v - values).clamp(min=0).mean()
    assert (0.9 * above).item() == pytest.approx((0.1 * below).item(), abs=1e-9)
    assert v > values.mean()
