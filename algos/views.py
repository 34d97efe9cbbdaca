"""Pictures of a rollout, for methods whose encoder learns.

What an encoder made of them while acting teaches it nothing, so pictures are kept, as bytes, and encoded anew for
every gradient step: each once, however many denoising steps of it the step learns from. They may be changed by
numbers that are drawn once per rollout: old and new likelihoods then are of the same pictures (DPPO, image variant).
Shapes: M decisions, B rows of a minibatch, T observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..policies.policy import Policy
from ..policies.vision import Draws, Encoder
from ..shapes import Float, Int

KEPT = "obs/"
"""beginning of the names under which `kept` gives observations to a rollout"""
AT_ONCE = 128
"""observations per pass through an encoder where nothing else is said: bounds the memory of its activations"""


@dataclass(frozen=True)
class Views:
    """Observations of M decisions, and how their pictures are changed."""

    obs: Mapping[str, Tensor]
    """name -> (M, T, ...), physical units, pictures as bytes"""
    draws: Draws | None = None

    def __len__(self) -> int:
        return len(next(iter(self.obs.values())))

    def features(self, policy: Policy, rows: Int[Tensor, " B"], encoder: Encoder | None = None) -> Float[Tensor, "B F"]:
        """Of some decisions, by the policy's encoder or another; one that is named several times is encoded once."""
        different, place = rows.unique(return_inverse=True)
        obs = {name: value[different] for name, value in self.obs.items()}
        return policy.features(obs, self.draws and self.draws.rows(different), encoder)[place]

    def plain(self) -> Views:
        """The same, unchanged."""
        return replace(self, draws=None)

    def changed(self, policy: Policy, generator: torch.Generator) -> Views:
        """Changed by newly drawn numbers, as the policy's encoder is meant to be trained."""
        return replace(self, draws=policy.draw_augmentation(len(self), generator))


def kept(policy: Policy, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What acting leaves for `views_of`: observations (N, T, ...) where there are pictures, else nothing."""
    return {KEPT + name: obs[name] for name in policy.spec.obs} if policy.network.encoder else {}


def views_of(extras: Mapping[str, Tensor]) -> Views | None:
    """Views of M decisions' kept observations, (M, T, ...); None where nothing was kept."""
    obs = {name.removeprefix(KEPT): value for name, value in extras.items() if name.startswith(KEPT)}
    return Views(obs) if obs else None
