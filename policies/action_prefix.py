"""Actions that are committed already when a chunk is made, for real-time chunking that is learned in training.

While a policy computes, the robot plays on: the first n actions of the new chunk, from the moment of its observation,
are no longer free. The network is told them and the chunk begins with them, so that it goes on where they end (Black
et al. 2025, "Training-Time Action Conditioning for Efficient Real-Time Chunking", arXiv:2512.05964). There they stand
in the noisy chunk at the time of clean data; here they are features of the observation. Any network takes those,
whatever it denoises, and a one-step student too. Shapes: B batch, P most committed actions, A action dim, H horizon,
F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float
from .normalizer import ACTION, Normalizer

ACTIONS, LENGTH = "prefix_actions", "prefix_len"
"""names, beside the observations, of physical actions (B, P, A) and of how many of them are committed (B,)"""


@dataclass(frozen=True)
class ActionPrefix:
    """The first part of the features: P * A normalised actions, those beyond n zero, and P flags."""

    most: int
    """P; 0: the policy knows of no prefix"""
    dim: int
    """A"""

    @property
    def size(self) -> int:
        """Length of this part."""
        return self.most * (self.dim + 1)

    def features(self, obs: Mapping[str, Tensor], normalizer: Normalizer) -> list[Float[Tensor, "B S"]]:
        """This part for physical observations; observations without a prefix have one of length 0.

        Raises:
            UserError: for actions of another shape, or without their number.
        """
        if not self.most:
            return []
        if ACTIONS not in obs:
            batch = next(iter(obs.values())).shape[0]
            return [next(normalizer.buffers()).new_zeros(batch, self.size)]
        actions = obs[ACTIONS]
        if tuple(actions.shape[1:]) != (self.most, self.dim) or LENGTH not in obs:
            raise UserError(
                f"a prefix is {ACTIONS} (B, {self.most}, {self.dim}) and {LENGTH} (B,), got {ACTIONS} of shape "
                f"{tuple(actions.shape)}"
            )
        known = (torch.arange(self.most, device=actions.device) < obs[LENGTH][:, None])[..., None]  # (B, P, 1)
        normal = normalizer.normalize(ACTION, actions)
        return [torch.cat([torch.where(known, normal, 0.0), known.to(normal.dtype)], 2).flatten(1)]

    def hold(self, features: Float[Tensor, "B F"], chunk: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """A normalised chunk that begins with what is committed."""
        if not self.most:
            return chunk
        part = features[:, : self.size].unflatten(1, (self.most, self.dim + 1))
        begun = torch.where(part[..., -1:] > 0, part[..., :-1], chunk[:, : self.most])
        return torch.cat([begun, chunk[:, self.most :]], 1)

    def draw(self, chunk: Float[Tensor, "B H A"], generator: torch.Generator) -> dict[str, Tensor]:
        """A prefix of 0 to P actions of each physical chunk, as entries of the observation; none if P = 0."""
        if not self.most:
            return {}
        shape = (len(chunk),)
        length = torch.randint(self.most + 1, shape, generator=generator, device=generator.device)
        return {ACTIONS: chunk[:, : self.most], LENGTH: length.to(chunk.device)}
