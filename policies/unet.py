"""The conditional 1-D U-Net over a chunk's steps: Chi et al. 2023 (Diffusion Policy), https://arxiv.org/abs/2303.04137.

Levels of two residual blocks, each at half the resolution of the one before, then back up with the blocks' outputs
joined. In every block time and condition scale and shift the channels (FiLM: Perez et al. 2018):

    h = mish(norm(conv(x)));    h = scale * h + shift;    x = mish(norm(conv(h))) + skip(x)

Scale and shift do not depend on the chunk, so a chain computes them once for all of its steps.
Shapes: B batch, R rows (batch, or steps times batch), W channels, L steps at a level, H horizon, A action dim,
F features of the observation, D their number at one time, C condition, E time embedding, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import UserError, at_least
from ..shapes import Float
from .activation import Mish
from .denoiser import Denoiser, Sizes
from .network import TimeEmbedding, check_time_dim, trunk
from .sampler import Step


@dataclass(frozen=True)
class UNet:
    """The conditional 1-D U-Net; `build` makes it. Defaults are Diffusion Policy's for low-dimensional observations.

    LeRobot's is the same with `time_dim` 128 and `down_dims` (512, 1024, 2048); DPPO's has `time_dim` 16,
    `down_dims` (64, 128) and `film_layers` 3.
    """

    down_dims: tuple[int, ...] = (256, 512, 1024)
    """channels at each level, the chunk's own resolution first; the horizon is halved from one to the next"""
    kernel_size: int = 5
    groups: int = 8
    """of channels that are normalised together"""
    last_groups: int = 8
    """the same in the last layers; 8 in Diffusion Policy and LeRobot, whatever `groups` is"""
    groupnorm_eps: float = 1e-5
    """DPPO on furniture: 1e-4"""
    time_dim: int = 256
    """width of the time embedding"""
    condition_hidden: tuple[int, ...] = ()
    """widths of a small residual network over the observation (DPPO); empty: the observation itself"""
    film_scale: bool = True
    """time and condition scale and shift channels; False: they shift them"""
    film_layers: Literal[1, 3] = 1
    """layers that make scale and shift of time and condition (DPPO: 3 unless `smaller_encoder` or a `cond_mlp`)"""
    local: bool = False
    """observations belong to steps of the chunk, the first to the first, and enter there (Diffusion Policy's
    local conditioning); False: to the whole chunk"""
    step_size: bool = False
    """the network also sees how far the step goes (shortcut and mean-flow policies)"""

    def __post_init__(self) -> None:
        at_least(1, self, "groups", "last_groups", "kernel_size")
        check_time_dim(self.time_dim)
        if not self.down_dims or min(self.down_dims) < 1:
            raise UserError(f"down_dims must be one width or more, at least 1 each, got {self.down_dims}")
        if self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size {self.kernel_size} must be odd, or a chunk would change its length")
        for name, groups, widths in (
            ("groups", self.groups, self.down_dims),
            ("last_groups", self.last_groups, self.down_dims[:1]),
        ):
            if any(width % groups for width in widths):
                raise UserError(f"{name} {groups} must divide every one of the down_dims {widths}")
        if self.local and self.condition_hidden:
            raise UserError("local conditioning takes observations as they are: leave condition_hidden empty")

    def build(self, sizes: Sizes) -> ConditionalUNet:
        """The network for observations and chunks of these sizes.

        Raises:
            UserError: for a horizon that cannot be halved often enough, and for local observations that are more than
                the horizon has steps or not told apart by time.
        """
        halved = 2 ** (len(self.down_dims) - 1)
        if sizes.horizon % halved:
            raise UserError(
                f"horizon {sizes.horizon} must be a multiple of {halved} for {len(self.down_dims)} down_dims: "
                "change the horizon, or give fewer down_dims"
            )
        if self.local:
            sizes.require_times()
        if self.local and sizes.n_obs_steps > sizes.horizon:
            raise UserError(
                f"local conditioning has one observation per step of the chunk: n_obs_steps {sizes.n_obs_steps} "
                f"must not exceed the horizon {sizes.horizon}"
            )
        return ConditionalUNet(self, sizes)


Film = tuple[Tensor, ...]
"""(shift,) or (shift, scale) of one block, each (R, W, 1)"""


@dataclass(frozen=True)
class Known:
    """All that the network makes of time and condition alone."""

    films: list[Film]
    """by block, in the order in which they are called"""
    local: Tensor | None
    """what local conditioning adds at the first level, (R, W, H)"""

    def steps(self, count: int) -> list[Known]:
        """Rows of `count` steps, one batch after the other, as one of these per step."""

        def split(rows: Tensor) -> tuple[Tensor, ...]:
            return rows.unflatten(0, (count, -1)).unbind()

        films = zip(*(zip(*map(split, film), strict=True) for film in self.films), strict=True)
        local = [None] * count if self.local is None else split(self.local)
        return [Known(list(film), added) for film, added in zip(films, local, strict=True)]


class Block(nn.Module):
    """Two convolutions beside a skip, modulated between them."""

    def __init__(self, width_in: int, width: int, known: int, config: UNet) -> None:
        super().__init__()
        self.first, self.second = (_convolution(w, width, config, config.groups) for w in (width_in, width))
        self.parts, out = 1 + config.film_scale, (1 + config.film_scale) * width
        layers = [Mish(), nn.Linear(known, out)]
        if config.film_layers == 3:
            layers = [nn.Linear(known, out), Mish(), nn.Linear(out, out), Mish(), nn.Linear(out, out)]
        self.film = nn.Sequential(*layers)
        self.skip = nn.Conv1d(width_in, width, 1) if width_in != width else nn.Identity()

    def modulation(self, known: Float[Tensor, "R EC"]) -> Film:
        """Shift, and scale, from time and condition side by side. The layer's first half is the scale."""
        return self.film(known)[..., None].chunk(self.parts, 1)[::-1]

    def forward(self, x: Float[Tensor, "B V L"], film: Film) -> Float[Tensor, "B W L"]:
        """V channels to W."""
        hidden = self.first(x)
        hidden = torch.addcmul(film[0], film[1], hidden) if self.parts == 2 else hidden + film[0]
        return self.second(hidden) + self.skip(x)


class Level(nn.Module):
    """Two blocks at one resolution, and the way to the next."""

    def __init__(self, width_in: int, width: int, known: int, config: UNet, resample: nn.Module) -> None:
        super().__init__()
        self.first, self.second = Block(width_in, width, known, config), Block(width, width, known, config)
        self.resample = resample


class LocalCondition(nn.Module):
    """Flat features to one column per step of the chunk, zeros where nothing was observed."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B DH"]:
        """Flat again: all steps of one number after the other."""
        sizes = self.sizes
        columns = sizes.by_time(features).transpose(1, 2)
        return pad(columns, (0, sizes.horizon - sizes.n_obs_steps)).flatten(1)


class ConditionalUNet(Denoiser):
    """Chunk, time embedding, condition -> chunk."""

    def __init__(self, config: UNet, sizes: Sizes) -> None:
        super().__init__()
        self.horizon = sizes.horizon
        self.time_embedding = TimeEmbedding(config.time_dim, 4 * config.time_dim, config.step_size)
        self.time_dim, observed = config.time_dim, sum(sizes.obs)
        widths = config.condition_hidden
        if config.local:
            self.condition, self.condition_dim = LocalCondition(sizes), observed * sizes.horizon
        else:
            self.condition = trunk((sizes.features, *widths), "mish", residual=True) if widths else nn.Identity()
            self.condition_dim = widths[-1] if widths else sizes.features
        known = self.time_dim + (0 if config.local else self.condition_dim)
        dims = config.down_dims
        self.local = Block(observed, dims[0], known, config) if config.local else None
        halve = [nn.Conv1d(w, w, 3, stride=2, padding=1) for w in dims[:-1]]
        double = [nn.ConvTranspose1d(w, w, 4, stride=2, padding=1) for w in dims[-2::-1]]
        levels = zip((sizes.action_dim, *dims), dims, [*halve, nn.Identity()], strict=False)
        down = nn.ModuleList(Level(v, w, known, config, resample) for v, w, resample in levels)
        middle = nn.ModuleList(Block(dims[-1], dims[-1], known, config) for _ in range(2))
        levels = zip(dims[:0:-1], dims[-2::-1], double, strict=True)
        up = nn.ModuleList(Level(2 * v, w, known, config, resample) for v, w, resample in levels)
        # Typed by what they hold.
        self.down, self.up = cast("Sequence[Level]", down), cast("Sequence[Level]", up)
        self.middle = cast("Sequence[Block]", middle)
        self.last = _convolution(dims[0], dims[0], config, config.last_groups)
        self.out = nn.Conv1d(dims[0], sizes.action_dim, 1)

    def forward(
        self, x: Float[Tensor, "B H A"], time: Float[Tensor, "B E"], condition: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """One call per row; `time` comes from `time_embedding`, `condition` from `condition`."""
        return self.walk(x, self.know(time, condition))

    def fold(self, times: Float[Tensor, "K E"], condition: Float[Tensor, "B C"]) -> Step:
        """The same network for walking a chain: convolutions, norms and multiply-adds are all that a step computes."""
        count, batch = times.shape[0], condition.shape[0]  # `len` would fix the batch of an exported graph
        rows = times[:, None].expand(-1, batch, -1).flatten(0, 1), condition.expand(count, -1, -1).flatten(0, 1)
        known = self.know(*rows).steps(count)
        return lambda k, x: self.walk(x, known[k])

    def know(self, time: Float[Tensor, "R E"], condition: Float[Tensor, "R C"]) -> Known:
        """What does not depend on the chunk."""
        if self.local is None:
            both = torch.cat([time, condition], 1)
            return Known([block.modulation(both) for block in self.blocks()], None)
        columns = condition.unflatten(1, (-1, self.horizon))
        return Known(
            [block.modulation(time) for block in self.blocks()], self.local(columns, self.local.modulation(time))
        )

    def walk(self, x: Float[Tensor, "B H A"], known: Known) -> Float[Tensor, "B H A"]:
        """What does."""
        films, kept = iter(known.films), []
        x = x.transpose(1, 2)
        for level in self.down:
            x = level.first(x, next(films))
            x = x if kept or known.local is None else x + known.local
            x = level.second(x, next(films))
            kept.append(x)
            x = level.resample(x)
        for block in self.middle:
            x = block(x, next(films))
        for level in self.up:
            x = level.first(torch.cat([x, kept.pop()], 1), next(films))
            x = level.resample(level.second(x, next(films)))
        return self.out(self.last(x)).transpose(1, 2)

    def blocks(self) -> list[Block]:
        """Those on the chunk's way, in order."""
        down, up = ([b for level in levels for b in (level.first, level.second)] for levels in (self.down, self.up))
        return [*down, *self.middle, *up]


def _convolution(width_in: int, width: int, config: UNet, groups: int) -> nn.Sequential:
    size = config.kernel_size
    norm = nn.GroupNorm(groups, width, eps=config.groupnorm_eps)
    return nn.Sequential(nn.Conv1d(width_in, width, size, padding=size // 2), norm, Mish())
