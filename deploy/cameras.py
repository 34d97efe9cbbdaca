"""What a robot's cameras give, as a policy was trained to see it: the resize inside of an exported graph.

Shapes: B batch, T observations, H and W of a camera, h and w of the policy, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown
from ..resize import Size, shares
from ..spec import ArraySpec, PolicySpec, split_pictures


class Cameras(nn.Module):
    """Makes a policy's observations of a robot's, whose pictures may be larger or smaller.

    Args:
        spec: the policy's.
        sizes: (height, width) of the pictures of some cameras, by name; the others' are the policy's.

    Raises:
        UserError: for a name that is no camera of the policy, or an empty size.
    """

    def __init__(self, spec: PolicySpec, sizes: Mapping[str, Size] = MappingProxyType({})) -> None:
        super().__init__()
        self.pictures, _ = split_pictures(spec.obs)
        self.obs: dict[str, ArraySpec] = dict(spec.obs)
        self.resize = nn.ModuleDict()
        for name, size in sizes.items():
            if name not in self.pictures:
                raise unknown("camera", name, self.pictures)
            if min(size) < 1:
                raise UserError(f"camera '{name}' of {size} shows nothing: height and width must be at least 1")
            seen = self.pictures[name].shape
            self.obs[name] = replace(spec.obs[name], shape=(*size, seen[2]))
            # Names of modules hold no dots.
            self.resize[name.replace(".", "/")] = _Resize(size, (seen[0], seen[1]))

    def forward(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A policy's observations, name -> (B, T, ...), of the cameras' ones."""
        made = dict(obs)
        for name in self.pictures:
            if (key := name.replace(".", "/")) in self.resize:
                made[name] = self.resize[key](obs[name])
        return made

    def sample(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random pictures (*shape, H, W, C) as a camera might give them."""
        return torch.randint(0, 256, (*shape, *self.obs[name].shape), generator=generator, dtype=torch.uint8)


class _Resize(nn.Module):
    def __init__(self, old: Size, new: Size) -> None:
        super().__init__()
        self.register_buffer("down", torch.from_numpy(shares(old[0], new[0])))
        self.register_buffer("across", torch.from_numpy(shares(old[1], new[1])))

    def forward(self, picture: Tensor) -> Tensor:
        """(B, T, H, W, C) bytes to (B, T, h, w, C) bytes."""
        rows = torch.einsum("yh,bthwc->btywc", self.get_buffer("down"), picture.float())
        return torch.einsum("xw,btywc->btyxc", self.get_buffer("across"), rows).round().to(torch.uint8)
