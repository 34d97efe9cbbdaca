"""ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) without its last pooling and layer, of any base width.

Batch normalisation sees other statistics in training than in acting; here stands GroupNorm in its place, or nothing,
for weights whose batch normalisation is folded into the convolutions. Shapes: B batch, C channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from ...shapes import Float

Norm = Literal["group", "folded"]
"""group: GroupNorm of 16 channels each; folded: convolutions with a bias instead"""
GROUP = 16
"""channels that GroupNorm normalises together"""
SHRINKS = 32
"""pixels of the picture per pixel of the map"""


class ConvNorm(nn.Module):
    """A convolution that keeps or, by its stride, divides the size, and its normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: Norm) -> None:
        super().__init__()
        grouped = norm == "group"
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not grouped)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.GroupNorm(outputs // GROUP, outputs) if grouped else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W')."""
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    """Two convolutions added to their input, which a convolution brings to their shape where they change it."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride, norm)
        self.second = ConvNorm(outputs, outputs, 3, 1, norm)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W')."""
        return relu(self.skip(x) + self.second(relu(self.first(x))))


class ResNet18(nn.Module):
    """Pictures to a map of 8 times `width` channels, 32 times smaller."""

    def __init__(self, width: int = 64, channels: int = 3, norm: Norm = "group") -> None:
        super().__init__()
        self.channels = 8 * width
        self.stem = ConvNorm(channels, width, 7, 2, norm)
        self.pool = nn.MaxPool2d(3, 2, 1)
        stages = []
        for i in range(4):
            outputs = width << i
            stages.append(
                nn.Sequential(
                    BasicBlock(outputs if i == 0 else outputs // 2, outputs, 1 if i == 0 else 2, norm),
                    BasicBlock(outputs, outputs, 1, norm),
                )
            )
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Of normalised pictures."""
        return self.stages(self.pool(relu(self.stem(x))))


def map_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the map of pictures of `size`."""
    height, width = (-(-side // SHRINKS) for side in size)
    return height, width
