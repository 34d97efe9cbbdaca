"""Checks that run in every training: a method that fails one stops with a named cause."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UserError
from ..policies.actor import Actor, Base
from ..policies.residual import Residual

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


@torch.no_grad()
def audit_ratio(log_ratio: Tensor) -> None:
    """Before the first update, scoring must repeat the log-probs recorded while sampling: every ratio is 1.

    Raises:
        UserError: if a ratio is off by more than rounding.
    """
    off = (log_ratio.exp() - 1).abs().max().item()
    if not off <= TOLERANCE[log_ratio.dtype]:
        raise UserError(
            f"ratio audit failed: a ratio is off by {off:.1e} before any update, so sampling and scoring disagree "
            "(another sampler, std floor or network in one of the two?)"
        )


@torch.no_grad()
def audit_start(base: Base, tuned: Actor, obs: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Before learning starts, the wrapped policy must act like its base: the same noise gives the same actions.

    Raises:
        UserError: if actions differ by more than rounding.
    """
    shape = (len(next(iter(obs.values()))), *base.noise_shape)
    noise = torch.randn(shape, generator=generator, device=base.device, dtype=base.dtype)
    action = tuned.act(obs, noise)
    if isinstance(tuned, Residual):
        tuned.reset()  # it remembers the chunk that it began
    expected = base.act(obs, noise)[:, : action.shape[1]]
    off = ((action - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
    if not off <= 1e-5:
        raise UserError(
            f"step-0 gate failed: before learning the policy's actions differ from its base's by {off:.1e} "
            "(relative): the base was not loaded as it was trained"
        )
