"""Augmentations of pictures in two halves: draw the numbers, then a pure function of pictures and numbers.

The same numbers change the same pictures in the same way, so reinforcement learning can look twice. Windows only move
bytes and keep the type; colours are floats. Shapes: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import fractions
from ...shapes import Float, Int

LUMA = (0.299, 0.587, 0.114)
"""how much red, green and blue make grey (ITU-R BT.601)"""


@dataclass(frozen=True)
class Jitter:
    """How far colours may change in training; 0: not at all. LeRobot suggests 0.2, 0.2, 0.5 and 0.05."""

    brightness: float = 0.0
    """factors lie within 1 +- this, as those of the next two"""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """turns of the colour circle, within +- this"""

    def __post_init__(self) -> None:
        fractions(self, "brightness", "contrast", "saturation", "hue")

    def __bool__(self) -> bool:
        """Anything changes."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


def draw_shift(n: int, pad: int, generator: torch.Generator) -> Int[Tensor, "N 2"]:
    """Rows and columns that pictures move up and left by, from 0 to 2 `pad`; `pad` of both moves nothing."""
    return torch.randint(2 * pad + 1, (n, 2), generator=generator, device=generator.device)


def shift(images: Tensor, draws: Int[Tensor, "N 2"], pad: int) -> Tensor:
    """Pictures (N, C, H, W) moved by up to `pad` pixels, edges repeated (DrQ, Yarats et al. 2021)."""
    return _window(images, draws - pad, (images.shape[2], images.shape[3]))


def draw_crop(n: int, size: tuple[int, int], window: tuple[int, int], generator: torch.Generator) -> Int[Tensor, "N 2"]:
    """Top rows and left columns of windows inside pictures of `size`, both (height, width)."""
    corners = [
        torch.randint(full - part + 1, (n,), generator=generator, device=generator.device)
        for full, part in zip(size, window, strict=True)
    ]
    return torch.stack(corners, 1)


def crop(images: Tensor, draws: Int[Tensor, "N 2"], window: tuple[int, int]) -> Tensor:
    """Windows (N, C, *window) of pictures (N, C, H, W), each at its own corner."""
    return _window(images, draws, window)


def centre_crop(images: Tensor, window: tuple[int, int]) -> Tensor:
    """The middle (N, C, *window) of pictures (N, C, H, W)."""
    top, left = (round((full - part) / 2) for full, part in zip(images.shape[2:], window, strict=True))
    return images[:, :, top : top + window[0], left : left + window[1]]


def _window(images: Tensor, corner: Int[Tensor, "N 2"], window: tuple[int, int]) -> Tensor:
    """Rows and columns from `corner` on; those outside repeat the edge."""
    height, width = images.shape[2:]
    index = [torch.arange(part, device=images.device) + corner[:, i, None] for i, part in enumerate(window)]
    rows, columns = index[0].clamp(0, height - 1), index[1].clamp(0, width - 1)
    flat = (rows[:, :, None] * width + columns[:, None]).flatten(1)  # (N, h w)
    picked = images.flatten(2).gather(2, flat[:, None].expand(-1, images.shape[1], -1))
    return picked.unflatten(2, window)


def draw_jitter(n: int, limits: Jitter, generator: torch.Generator) -> Float[Tensor, "N 4"]:
    """Factors of brightness, contrast and saturation, and turns of the hue."""
    spread = torch.tensor([limits.brightness, limits.contrast, limits.saturation, limits.hue])
    u = 2 * torch.rand(n, 4, generator=generator, device=generator.device) - 1
    return u * spread.to(u) + torch.tensor([1.0, 1.0, 1.0, 0.0]).to(u)


def jitter(images: Tensor, draws: Float[Tensor, "N 4"]) -> Tensor:
    """Colours (N, 3, H, W) in [0, 1] changed: brightness, contrast, saturation, hue, each kept inside [0, 1]."""
    brightness, contrast, saturation, hue = draws.to(images)[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 1)
    images = _blend(images, _grey(images).mean((2, 3), keepdim=True), contrast)
    images = _blend(images, _grey(images), saturation)
    return _turn_hue(images, hue)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`share` may exceed 1: away from the other."""
    return torch.lerp(other.expand_as(images), images, share).clamp(0, 1)


def _turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """There and back by hue, saturation and value (Smith 1978)."""
    red, green, blue = images.split(1, 1)
    value, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - low
    spread = chroma.clamp(min=1e-12)
    sixths = torch.where(
        value == red,
        (green - blue) / spread,
        torch.where(value == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    k = torch.cat([(place + sixths + 6 * turns) % 6 for place in (5, 3, 1)], 1)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
