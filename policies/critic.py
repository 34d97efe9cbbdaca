"""Values of observations, and of observations with actions.

A state's value sees the observation alone, neither the noisy chunk nor the denoising step (DPPO, Sec. 5). Q-functions
come in ensembles that are one network: every layer is one batched product, so E members cost little more than one.
Shapes: B batch, E ensemble, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..errors import at_least
from ..shapes import Float
from .activation import Activation, activation
from .network import check_widths, trunk
from .vision import Encoder

Aggregate = Literal["min", "mean", "min2"]
"""one value of E: the least (clipped double Q), the mean, or the least of two drawn at random (REDQ, RLPD)"""
LayerNorm = Literal["none", "before", "after"]
"""where layers are normalised (Ba et al. 2016): nowhere, before the activation (DSRL, RLPD), after it (FQL)"""


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
    """V(obs). Where observations hold pictures, it has an encoder of its own that makes its features."""

    def __init__(self, config: CriticMLP, features: int) -> None:
        super().__init__()
        self.encoder: Encoder | None = None
        self.trunk = trunk((features, *config.hidden, 1), config.activation, config.residual)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        """Value per row, in units of the (scaled) return."""
        return self.trunk(features).squeeze(-1)


@dataclass(frozen=True)
class QMLP:
    """An ensemble of plain MLPs; `build` makes it. Defaults are those of Diffusion-QL."""

    hidden: tuple[int, ...] = (256, 256, 256)
    activation: Activation = "mish"
    ensemble: int = 2
    """E: members, alike but for their weights"""
    layer_norm: LayerNorm = "none"

    def __post_init__(self) -> None:
        at_least(1, self, "ensemble")
        check_widths(self.hidden)

    def build(self, features: int, action: int = 0) -> QEnsemble:
        """Q(obs, action) for F = features and flat actions of length `action`; V(obs) if that is 0."""
        return QEnsemble(self, features + action)


class QEnsemble(nn.Module):
    """E values per row by one batched network, its weights (E, in, out)."""

    def __init__(self, config: QMLP, width_in: int) -> None:
        super().__init__()
        self.config = config
        dims = (width_in, *config.hidden, 1)
        self.layers = nn.ModuleList(StackedLinear(config.ensemble, *d) for d in pairwise(dims))
        norms = config.hidden if config.layer_norm != "none" else ()
        # The constants of the libraries that the two placements come from: flax and torch.
        eps = 1e-6 if config.layer_norm == "after" else 1e-5
        self.norms = nn.ModuleList(StackedLayerNorm(config.ensemble, width, eps) for width in norms)
        self.act = activation(config.activation)

    def forward(self, features: Float[Tensor, "B F"], action: Tensor | None = None) -> Float[Tensor, "E B"]:
        """Value per member and row; `action` (B, ...) is flattened and follows the features."""
        x = features if action is None else torch.cat([features, action.flatten(1)], 1)
        x = x.expand(self.config.ensemble, *x.shape)
        before, after = self.config.layer_norm == "before", self.config.layer_norm == "after"
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            x = self.norms[i](x) if before else x
            x = self.act(x)
            x = self.norms[i](x) if after else x
        return self.layers[-1](x).squeeze(-1)


class StackedLinear(nn.Module):
    """E linear layers side by side; weights and biases are drawn as torch draws each one's."""

    def __init__(self, ensemble: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = width_in**-0.5
        self.weight = nn.Parameter(torch.empty(ensemble, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble, 1, width_out).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """One batched product."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedLayerNorm(nn.Module):
    """E layer normalisations side by side, each with its own gain and shift."""

    def __init__(self, ensemble: int, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(ensemble, 1, width))
        self.bias = nn.Parameter(torch.zeros(ensemble, 1, width))

    def forward(self, x: Float[Tensor, "E B O"]) -> Float[Tensor, "E B O"]:
        """Over the last dimension."""
        return torch.addcmul(self.bias, layer_norm(x, x.shape[-1:], eps=self.eps), self.weight)


def aggregate(
    q: Float[Tensor, "E *B"], how: Aggregate, generator: torch.Generator | None = None
) -> Float[Tensor, "*B"]:
    """One value per row; "min2" draws the two members, the same for all rows, from `generator`."""
    if how == "mean":
        return q.mean(0)
    if how == "min2" and len(q) > 2:
        q = q[torch.randperm(len(q), generator=generator, device=q.device)[:2]]
    return q.amin(0) if len(q) != 2 else torch.minimum(q[0], q[1])
