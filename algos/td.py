"""Targets and losses of critics that bootstrap (temporal differences). Shapes: B batch, E ensemble."""

from __future__ import annotations

import torch
from torch import Tensor

from ..shapes import Float
from .replay import Experience


def chunk_return(
    batch: Experience, gamma: float, per_step: bool, scale: float = 1.0
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Reward of each decision and the discount of what follows it, 0 after a termination.

    Args:
        batch: decisions of up to n environment steps.
        gamma: discount per decision, or per environment step.
        per_step: False: sum_i r_i and gamma (DSRL, Diffusion-QL). True: sum_i gamma^i r_i and gamma^length, the
            backup of Q-chunking (Li et al. 2025, Eq. 7).
        scale: of the rewards.
    """
    going_on = (~batch.terminated).to(batch.reward.dtype)
    if not per_step:
        return scale * batch.reward.sum(1), gamma * going_on
    powers = gamma ** torch.arange(batch.reward.shape[1], device=batch.reward.device, dtype=batch.reward.dtype)
    return scale * (batch.reward @ powers), gamma ** batch.length.to(batch.reward.dtype) * going_on


def td_loss(q: Float[Tensor, "E B"], target: Float[Tensor, "*E B"]) -> Float[Tensor, ""]:
    """Mean squared error of each member, summed over members; one target for all (B,), or one each (E, B)."""
    return (q - target).square().sum() / q.shape[1]


def expectile_loss(error: Float[Tensor, "..."], expectile: float) -> Float[Tensor, ""]:
    """Mean of |expectile - 1(error < 0)| error^2, error = target - value (IQL, Kostrikov et al. 2021, Eq. 5)."""
    weight = (expectile - (error < 0).to(error.dtype)).abs()
    return (weight * error.square()).mean()
