"""Where a map is bright: spatial softmax (Finn et al. 2016, https://arxiv.org/abs/1509.06113)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...shapes import Float


class SpatialSoftmax(nn.Module):
    """The mean place (x, y) of each channel, from -1 to 1, under the softmax of its values over the map.

    With `keypoints` a linear layer makes that many channels first; 0 keeps those of the map.
    """

    def __init__(self, channels: int, size: tuple[int, int], keypoints: int = 0) -> None:
        super().__init__()
        self.keypoints = keypoints or channels
        self.mix = nn.Conv2d(channels, keypoints, 1) if keypoints else nn.Identity()
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, side, dtype=torch.float64) for side in size), indexing="ij")
        self.register_buffer("places", torch.stack([x, y], -1).flatten(0, 1).float(), persistent=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K 2"]:
        """Places of K keypoints."""
        return self.mix(x).flatten(2).softmax(2) @ self.get_buffer("places").to(x.dtype)
