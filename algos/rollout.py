"""What on-policy algorithms learn from, filled decision by decision in tensors that are allocated once.

Shapes: D decisions, N environment slots, T observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..shapes import Float
from .returns import Ends


@dataclass(frozen=True)
class Rollout:
    """D decisions in N slots; episodes begin and end anywhere inside."""

    extras: Mapping[str, Tensor]
    """name -> (D, N, ...): what the algorithm's `act` returned beside the action"""
    next_obs: Mapping[str, Tensor]
    """name -> (D, N, T, ...): what truly followed each chunk, also at the end of an episode"""
    reward: Float[Tensor, "D N"]
    """sum over the chunk"""
    ends: Ends


class RolloutBuffer:
    """Space for D decisions, on the device and in the dtype of what is first put in; reused by every rollout."""

    def __init__(self, decisions: int) -> None:
        self.decisions = decisions
        self.tensors: dict[str, Tensor] = {}

    def put(self, d: int, values: Mapping[str, Tensor]) -> None:
        """Store decision d's values, name -> (N, ...)."""
        for name, value in values.items():
            if name not in self.tensors:
                shape = (self.decisions, *value.shape)
                self.tensors[name] = torch.empty(shape, dtype=value.dtype, device=value.device)
            self.tensors[name][d] = value

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
