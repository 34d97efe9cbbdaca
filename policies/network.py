"""Networks that see a noisy chunk, a time and an observation.

Shapes: B batch, H horizon, A action dim, F features of the observation, C condition, E time embedding, K steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..errors import UserError, at_least
from ..shapes import Float
from .activation import Activation, Mish, activation
from .sampler import Step


@dataclass(frozen=True)
class MLP:
    """The denoising MLP of DPPO; `build` makes it. Defaults are its Gym setting."""

    hidden: tuple[int, ...] = (512, 512, 512)
    """widths; with `residual` an odd number of equal ones: one input layer, then blocks of two"""
    condition_hidden: tuple[int, ...] = ()
    """widths of a small network over the observation; empty: the observation itself"""
    time_dim: int = 16
    activation: Activation = "relu"
    residual: bool = True

    def __post_init__(self) -> None:
        at_least(4, self, "time_dim")
        if self.time_dim % 2:
            raise UserError(f"time_dim {self.time_dim} must be even: half sines, half cosines")

    def build(self, features: int, horizon: int, action_dim: int) -> DenoisingMLP:
        """The network for F = features and chunks of (horizon, action_dim)."""
        return DenoisingMLP(self, features, horizon, action_dim)


class ResidualBlock(nn.Module):
    """Two linear layers, activation before each, added to their input."""

    def __init__(self, width: int, act: Activation) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(width, width), nn.Linear(width, width)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        return x + self.l2(self.act(self.l1(self.act(x))))


def trunk(dims: tuple[int, ...], act: Activation, residual: bool) -> nn.Sequential:
    """A perceptron from dims[0] to dims[-1]: residual blocks, or plain layers with activations between."""
    if residual:
        if len(dims) % 2 == 0 or len(set(dims[1:-1])) != 1:
            raise UserError(f"a residual network needs an odd number of equal hidden widths, got {dims[1:-1]}")
        blocks = [ResidualBlock(dims[1], act) for _ in range((len(dims) - 3) // 2)]
        return nn.Sequential(nn.Linear(dims[0], dims[1]), *blocks, nn.Linear(dims[-2], dims[-1]))
    layers: list[nn.Module] = []
    for i in range(len(dims) - 1):
        layers += [nn.Linear(dims[i], dims[i + 1]), activation(act)]
    return nn.Sequential(*layers[:-1])


class Sinusoid(nn.Module):
    """Sines and cosines of the time at geometric frequencies (Vaswani et al. 2017)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000.0) / (half - 1)))
        self.register_buffer("rate", rate, persistent=False)

    def forward(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B E"]:
        """Embed times."""
        angle = t[:, None] * self.get_buffer("rate").to(t.dtype)
        return torch.cat([angle.sin(), angle.cos()], -1)


class DenoisingMLP(nn.Module):
    """[chunk, time embedding, condition] -> residual MLP -> chunk."""

    def __init__(self, config: MLP, features: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.chunk = (horizon, action_dim)
        self.time_dim = config.time_dim
        self.time_embedding = nn.Sequential(
            Sinusoid(config.time_dim),
            nn.Linear(config.time_dim, 2 * config.time_dim),
            Mish(),
            nn.Linear(2 * config.time_dim, config.time_dim),
        )
        widths = config.condition_hidden
        self.condition = trunk((features, *widths), config.activation, residual=False) if widths else nn.Identity()
        flat = horizon * action_dim
        width_in = flat + config.time_dim + (widths[-1] if widths else features)
        self.trunk = trunk((width_in, *config.hidden, flat), config.activation, config.residual)

    def forward(
        self, x: Float[Tensor, "B H A"], time: Float[Tensor, "B E"], condition: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """One call per row; `time` comes from `time_embedding`, `condition` from `condition`."""
        return self.trunk(torch.cat([x.flatten(1), time, condition], 1)).view_as(x)

    def fold(self, times: Float[Tensor, "K E"], condition: Float[Tensor, "B C"]) -> Step:
        """The same network for walking a chain: what time and condition add to the first layer is computed once."""
        first, rest = self.trunk[0], self.trunk[1:]
        assert isinstance(first, nn.Linear)
        assert isinstance(rest, nn.Sequential)
        flat = self.chunk[0] * self.chunk[1]
        w_x, w_t, w_c = first.weight.split([flat, self.time_dim, condition.shape[1]], 1)
        from_condition = linear(condition, w_c, first.bias)
        from_time = linear(times, w_t)

        def step(k: int, x: Tensor) -> Tensor:
            hidden = torch.addmm(from_condition + from_time[k], x.flatten(1), w_x.t())
            return rest(hidden).view_as(x)

        return step
