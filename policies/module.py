"""What actors with weights have in common: where those live, a name for them, noise of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..shapes import Float
from .fingerprint import fingerprint


class ActorModule(nn.Module):
    """A module whose `config` builds it and whose decisions consume noise of `noise_shape`. B batch, N draws."""

    config: Any

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(N, H, A): standard normal numbers that one decision consumes."""
        raise NotImplementedError

    def hash(self) -> str:
        """Short fingerprint of weights and configuration."""
        return fingerprint(self, self.config)

    def noise(self, batch: int, generator: torch.Generator | None = None) -> Float[torch.Tensor, "B N H A"]:
        """Standard normal noise for whole decisions."""
        shape = (batch, *self.noise_shape)
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
