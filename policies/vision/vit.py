"""The small vision transformer of DPPO, which comes from IBRL (Hu et al. 2023, https://arxiv.org/abs/2311.02198).

The pictures of all times lie over one another as channels; all cameras share the transformer, and each has a spatial
embedding of its own: every dimension of the patches, over all of them, meets the robot's state.
Shapes: B batch, T observations, S state of one time, P patches, D width, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import UserError, at_least
from ...shapes import Float
from ..attention import Block
from .augment import Jitter
from .encoder import Draws, Encoder, Shape


@dataclass(frozen=True)
class ViT:
    """DPPO's encoder of pictures; defaults are those of its robomimic tasks."""

    patches: Literal["overlapping", "separate"] = "overlapping"
    """how pixels become patches: two convolutions, 8 wide in steps of 4, then 3 wide in steps of 2; or one, 8 wide
    in steps of 8"""
    width: int = 128
    """numbers per patch"""
    depth: int = 1
    """transformer layers"""
    heads: int = 4
    """of attention"""
    features: int = 128
    """per camera, of all times together"""
    shift: int = 4
    """pixels that pictures move by in training; 0: none"""
    jitter: Jitter = field(default_factory=Jitter)

    def __post_init__(self) -> None:
        at_least(1, self, "width", "depth", "heads", "features")
        at_least(0, self, "shift")
        if self.width % self.heads:
            raise UserError(f"the transformer's width {self.width} must be a multiple of its heads {self.heads}")

    def build(self, images: Mapping[str, Shape], state: int, n_obs_steps: int) -> ViTEncoder:
        """The encoder of these cameras.

        Raises:
            UserError: for cameras of different or too small sizes.
        """
        return ViTEncoder(self, images, state, n_obs_steps)


class Transformer(nn.Module):
    """Pictures to patches that have seen one another."""

    def __init__(self, config: ViT, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        width = config.width
        if config.patches == "overlapping":
            layers = [nn.Conv2d(channels, width, 8, 4), nn.ReLU(), nn.Conv2d(width, width, 3, 2)]
        else:
            layers = [nn.Conv2d(channels, width, 8, 8)]
        self.cut = nn.Sequential(*layers)
        self.patches = count_patches(config, size)
        self.place = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, self.patches, width), std=0.02))
        self.blocks = nn.Sequential(*(Block(width, config.heads, dropout=0.0) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(width)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P D"]:
        """Of pictures whose values lie within +-0.5."""
        return self.norm(self.blocks(self.cut(x).flatten(2).transpose(1, 2) + self.place))


def count_patches(config: ViT, size: tuple[int, int]) -> int:
    """Of one picture of this height and width.

    Raises:
        UserError: if it is too small to have any.
    """
    if config.patches == "overlapping":
        rows, columns = (((side - 8) // 4 + 1 - 3) // 2 + 1 for side in size)
    else:
        rows, columns = (side // 8 for side in size)
    if rows < 1 or columns < 1:
        smallest = 16 if config.patches == "overlapping" else 8
        raise UserError(f"pictures of {size} give no patch: they must be at least {smallest} pixels high and wide")
    return rows * columns


class SpatialEmbedding(nn.Module):
    """Each dimension of the patches, with the state, is projected; a weighted sum over dimensions is what is seen."""

    def __init__(self, patches: int, width: int, state: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, width, features))
        self.project = nn.Sequential(nn.Linear(patches + state, features), nn.LayerNorm(features), nn.ReLU())

    def forward(self, x: Float[Tensor, "B P D"], state: Float[Tensor, "B S"]) -> Float[Tensor, "B F"]:
        """Features of one camera."""
        x = x.transpose(1, 2)
        x = torch.cat([x, state[:, None].expand(-1, x.shape[1], -1)], 2)
        return (self.weight * self.project(x)).sum(1)


class ViTEncoder(Encoder):
    """Every camera's pictures through one transformer and an embedding each."""

    def __init__(self, config: ViT, images: Mapping[str, Shape], state: int, n_obs_steps: int) -> None:
        super().__init__(images, n_obs_steps, pad=config.shift, colours=config.jitter)
        *size, channels = self.common_shape()
        self.transformer = Transformer(config, n_obs_steps * channels, (size[0], size[1]))
        self.embeddings = nn.ModuleList(
            SpatialEmbedding(self.transformer.patches, config.width, n_obs_steps * state, config.features)
            for _ in images
        )
        if n_obs_steps == 1:
            self.per_step = (config.features,) * len(images)
        else:
            self.whole = config.features * len(images)

    def forward(
        self, state: Float[Tensor, "B T S"], images: Mapping[str, Tensor], augment: Draws | None = None
    ) -> Float[Tensor, "B F"]:
        """One vector per camera, one after the other."""
        # One call for all cameras.
        pictures = torch.cat([self.pixels(name, images, augment).flatten(1, 2) for name in self.cameras])
        patches = self.transformer(pictures - 0.5).unflatten(0, (len(self.images), -1))
        flat = state.flatten(1)
        return torch.cat([embed(x, flat) for embed, x in zip(self.embeddings, patches, strict=True)], 1)
