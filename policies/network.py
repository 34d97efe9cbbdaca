"""The denoising MLP, and the layers that other networks share with it.

Shapes: B batch, H horizon, A action dim, F features of the observation, C condition, E time embedding, K steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..errors import UserError
from ..shapes import Float
from .activation import Activation, Mish, activation
from .denoiser import Denoiser, Sizes
from .sampler import Step


@dataclass(frozen=True)
class MLP:
    """The denoising MLP of DPPO; `build` makes it. Defaults are its Gym setting."""

    hidden: tuple[int, ...] = (512, 512, 512)
    """widths; with `residual` an odd number of equal ones: one input layer, then blocks of two"""
    condition_hidden: tuple[int, ...] = ()
    """widths of a small network over the observation; empty: the observation itself"""
    time_dim: int = 16
    """width of the time embedding; 0: the network is shown the time itself"""
    activation: Activation = "relu"
    residual: bool = True
    step_size: bool = False
    """the network also sees how far the step goes (shortcut and mean-flow policies)"""
    combine: Literal["concat", "add"] = "concat"
    """how the time embedding meets the condition; to be added they must be equally wide"""

    def __post_init__(self) -> None:
        if self.time_dim:
            check_time_dim(self.time_dim, "0, or ")

    def build(self, sizes: Sizes) -> DenoisingMLP:
        """The network for observations and chunks of these sizes."""
        return DenoisingMLP(self, sizes)


class ResidualBlock(nn.Module):
    """Two linear layers, activation before each, added to their input."""

    def __init__(self, width: int, act: Activation) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(width, width), nn.Linear(width, width)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        return x + self.l2(self.act(self.l1(self.act(x))))


def check_time_dim(dim: int, also: str = "") -> None:
    """Refuse a time embedding that cannot be half sines, half cosines.

    Raises:
        UserError: naming its width.
    """
    if dim < 4 or dim % 2:
        raise UserError(f"time_dim {dim} must be {also}even (half sines, half cosines) and at least 4")


def check_widths(hidden: tuple[int, ...]) -> None:
    """Refuse layers without a unit.

    Raises:
        UserError: naming them.
    """
    if min(hidden, default=1) < 1:
        raise UserError(f"hidden widths must be at least 1, got {hidden}")


def trunk(dims: tuple[int, ...], act: Activation, residual: bool) -> nn.Sequential:
    """A perceptron from dims[0] to dims[-1]: residual blocks, or plain layers with activations between."""
    check_widths(dims[1:-1])
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


class TimeEmbedding(nn.Sequential):
    """A time, or a time and the size of the step that starts there, embedded by a small network."""

    def __init__(self, dim: int, hidden: int, step_size: bool) -> None:
        waves = 2 * dim if step_size else dim
        super().__init__(Sinusoid(dim), nn.Linear(waves, hidden), Mish(), nn.Linear(hidden, dim))
        self.step_size = step_size

    def forward(self, t: Float[Tensor, " B"], d: Float[Tensor, " B"] | None = None) -> Float[Tensor, "B E"]:
        """Embed times, and step sizes where the network was made for them."""
        waves = self[0]
        both = torch.cat([waves(t), waves(_required(d))], -1) if self.step_size else waves(t)
        return self[3](self[2](self[1](both)))


class PlainTime(nn.Module):
    """Times, and step sizes, as they are."""

    def __init__(self, step_size: bool) -> None:
        super().__init__()
        self.step_size = step_size

    def forward(self, t: Float[Tensor, " B"], d: Float[Tensor, " B"] | None = None) -> Float[Tensor, "B E"]:
        """Columns t, or t and d."""
        return torch.stack([t, _required(d)], -1) if self.step_size else t[:, None]


def _required(d: Tensor | None) -> Tensor:
    if d is None:
        raise ValueError("this network needs the step size")
    return d


class DenoisingMLP(Denoiser):
    """[chunk, time embedding, condition] -> residual MLP -> chunk."""

    def __init__(self, config: MLP, sizes: Sizes) -> None:
        super().__init__()
        self.chunk = (sizes.horizon, sizes.action_dim)
        self.add = config.combine == "add"
        if config.time_dim:
            hidden = config.time_dim * (1 if config.step_size else 2)
            self.time_embedding = TimeEmbedding(config.time_dim, hidden, config.step_size)
            self.time_dim = config.time_dim
        else:
            self.time_embedding, self.time_dim = PlainTime(config.step_size), 1 + config.step_size
        widths = config.condition_hidden
        features = sizes.features
        self.condition = trunk((features, *widths), config.activation, residual=False) if widths else nn.Identity()
        self.condition_dim = widths[-1] if widths else features
        known = (self.time_dim, self.condition_dim)
        if self.add and known[0] != known[1]:
            raise UserError(f"combine 'add' needs time_dim {known[0]} equal to the condition's width {known[1]}")
        flat = sizes.horizon * sizes.action_dim
        width_in = flat + (known[0] if self.add else sum(known))
        self.trunk = trunk((width_in, *config.hidden, flat), config.activation, config.residual)

    def forward(
        self, x: Float[Tensor, "B H A"], time: Float[Tensor, "B E"], condition: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """One call per row; `time` comes from `time_embedding`, `condition` from `condition`."""
        known = [time + condition] if self.add else [time, condition]
        return self.trunk(torch.cat([x.flatten(1), *known], 1)).view_as(x)

    def fold(self, times: Float[Tensor, "K E"], condition: Float[Tensor, "B C"]) -> Step:
        """The same network for walking a chain: what time and condition add to the first layer is computed once."""
        first, rest = self.trunk[0], self.trunk[1:]
        assert isinstance(first, nn.Linear)
        assert isinstance(rest, nn.Sequential)
        w_x, w_t, w_c = self.split_first()
        from_condition = linear(condition, w_c, first.bias)
        from_time = linear(times, w_t)

        def step(k: int, x: Tensor) -> Tensor:
            hidden = torch.addmm(from_condition + from_time[k], x.flatten(1), w_x.t())
            return rest(hidden).view_as(x)

        return step

    def split_first(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first layer's weights for the chunk, the time and the condition."""
        first = self.trunk[0]
        assert isinstance(first, nn.Linear)
        flat = self.chunk[0] * self.chunk[1]
        if self.add:
            w_x, w_known = first.weight.split([flat, self.time_dim], 1)
            return w_x, w_known, w_known
        w_x, w_t, w_c = first.weight.split([flat, self.time_dim, first.in_features - flat - self.time_dim], 1)
        return w_x, w_t, w_c
