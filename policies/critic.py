"""State values. A critic sees the observation alone, neither the noisy chunk nor the denoising step (DPPO, Sec. 5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..shapes import Float
from .activation import Activation
from .network import trunk


@dataclass(frozen=True)
class CriticMLP:
    """A residual MLP from the normalised observation to a value; `build` makes it."""

    hidden: tuple[int, ...] = (256, 256, 256)
    activation: Activation = "mish"
    residual: bool = True

    def build(self, features: int) -> Critic:
        """The critic for F = features."""
        return Critic(self, features)


class Critic(nn.Module):
    """V(obs)."""

    def __init__(self, config: CriticMLP, features: int) -> None:
        super().__init__()
        self.trunk = trunk((features, *config.hidden, 1), config.activation, config.residual)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        """Value per row, in units of the (scaled) return."""
        return self.trunk(features).squeeze(-1)
