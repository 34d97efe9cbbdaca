"""LeRobot's encoder of colour pictures, as Diffusion Policy's: crop, ResNet-18, spatial softmax, a layer.

Every time and camera is encoded for itself, by one network or one per camera.
Shapes: B batch, T observations, S state of one time, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ...errors import UserError, at_least
from ...shapes import Float
from .augment import Jitter
from .encoder import Draws, Encoder, Shape
from .resnet import GROUP, SHRINKS, Norm, ResNet18, map_size
from .softmax import SpatialSoftmax


@dataclass(frozen=True)
class ResNet:
    """LeRobot's encoder of pictures; defaults are those of its Diffusion Policy."""

    width: int = 64
    """channels of the first stage, a multiple of 16; the last has 8 times as many"""
    keypoints: int = 32
    """places per picture; a picture has twice as many features"""
    crop: tuple[int, int] | None = None
    """(height, width) that is seen: anywhere in training, the middle in acting; None: everything"""
    separate: bool = False
    """a network per camera"""
    norm: Norm = "group"
    """group: GroupNorm; folded: none, for weights whose batch normalisation is folded into the convolutions"""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """of colours in [0, 1], subtracted; those of ImageNet"""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """of colours, divided by"""
    jitter: Jitter = field(default_factory=Jitter)

    def __post_init__(self) -> None:
        at_least(1, self, "width", "keypoints")
        if self.width % GROUP:
            raise UserError(f"the ResNet's width {self.width} must be a multiple of {GROUP}")
        if self.crop is not None and min(self.crop) < 1:
            raise UserError(f"crop {self.crop} must be at least one pixel high and wide")
        if min(self.std) <= 0:
            raise UserError(f"std {self.std} of colours must be positive")

    def build(self, images: Mapping[str, Shape], state: int, n_obs_steps: int) -> ResNetEncoder:
        """The encoder of these cameras, which needs no state.

        Raises:
            UserError: for cameras that are not colour, or differ in size and share a network.
        """
        return ResNetEncoder(self, images, n_obs_steps)


class ColourNetwork(nn.Module):
    """One picture to keypoints and a layer over them."""

    def __init__(self, config: ResNet, size: tuple[int, int]) -> None:
        super().__init__()
        if map_size(size) == (1, 1):
            raise UserError(
                f"pictures of {size} shrink to one point, whose place never changes: "
                f"give the ResNet more than {SHRINKS} pixels of height or width"
            )
        self.backbone = ResNet18(config.width, norm=config.norm)
        self.pool = SpatialSoftmax(self.backbone.channels, map_size(size), config.keypoints)
        self.out = nn.Linear(2 * config.keypoints, 2 * config.keypoints)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Of normalised colours."""
        return relu(self.out(self.pool(self.backbone(x)).flatten(1)))


class ResNetEncoder(Encoder):
    """Features of every camera, each with all its times."""

    def __init__(self, config: ResNet, images: Mapping[str, Shape], n_obs_steps: int) -> None:
        super().__init__(images, n_obs_steps, window=config.crop, colours=config.jitter)
        for name, shape in images.items():
            if shape[2] != 3:
                raise UserError(
                    f"camera '{name}' has {shape[2]} channels, the ResNet 3: leave it out (policy.observe), or use vit"
                )
        shapes = list(images.values()) if config.separate else [self.common_shape()]
        self.networks = nn.ModuleList(ColourNetwork(config, config.crop or shape[:2]) for shape in shapes)
        for name, value in (("mean", config.mean), ("std", config.std)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)
        self.per_step = (2 * config.keypoints,) * len(images)

    @property
    def backbones(self) -> list[ResNet18]:
        """One, or one per camera."""
        return [module for module in self.modules() if isinstance(module, ResNet18)]

    def forward(
        self, state: Float[Tensor, "B T S"], images: Mapping[str, Tensor], augment: Draws | None = None
    ) -> Float[Tensor, "B F"]:
        """Features of each camera at each time."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        pictures = [(self.pixels(name, images, augment).flatten(0, 1) - mean) / std for name in self.cameras]
        if len(self.networks) == 1:  # one call for all cameras
            features = self.networks[0](torch.cat(pictures)).unflatten(0, (len(pictures), -1))
        else:
            features = [network(x) for network, x in zip(self.networks, pictures, strict=True)]
        return torch.cat([x.unflatten(0, (-1, self.n_obs_steps)).flatten(1) for x in features], 1)
