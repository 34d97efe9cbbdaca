"""A frozen policy whose initial noise is chosen by a network (DSRL, Wagenmaker et al. 2025, arXiv:2506.15799).

    w = bound * tanh(mean(obs) + std(obs) * eps),    action = base(obs, noise = w)

The base stays what it was: whatever w is, the action is one that it can make.
Shapes: B batch, T observations, F features, H horizon, A action dim, R rows of coefficients, D = R * A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float
from ..spec import PolicySpec
from .actor import Base, Outside
from .gaussian import GaussianMLP
from .module import ActorModule
from .noise_space import NoiseSpace
from .normalizer import Normalizer
from .policy import Context, Policy, PolicyConfig


@dataclass(frozen=True)
class SteeredConfig:
    """What a steered policy is made of; `build` makes it."""

    base: PolicyConfig | Outside | None
    """None: a base that nothing finds again, to be handed over when building"""
    steer: GaussianMLP = field(default_factory=GaussianMLP)
    space: NoiseSpace = field(default_factory=NoiseSpace)
    sample: bool = True
    """draw w; otherwise take the most central one and ignore the noise"""

    def build(self, spec: PolicySpec, base: Base | None = None) -> Steered:
        """The policy; without `base` its weights are still to be loaded.

        Raises:
            UserError: where a base from outside is not given.
        """
        if base is None:
            if self.base is None:
                raise UserError("this policy steers one from outside: give that to SteeredConfig.build(spec, base)")
            base = Policy(self.base, spec) if isinstance(self.base, PolicyConfig) else self.base.open(spec)
        return Steered(self, base)


class Steered(ActorModule):
    """An actor like any policy. `network` chooses the noise, `base` is never trained."""

    def __init__(self, config: SteeredConfig, base: Base) -> None:
        super().__init__()
        self.base = steerable(base)
        self.config, self.spec = config, base.spec
        self.network = config.steer.build(base.feature_dim, self.noise_dim).to(base.device, base.dtype)

    @property
    def normalizer(self) -> Normalizer:
        """The base's."""
        return self.base.normalizer

    @property
    def feature_dim(self) -> int:
        """F: length of the encoded observation."""
        return self.base.feature_dim

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(1, R, A): Gaussian numbers that one decision consumes."""
        _, horizon, dim = self.base.noise_shape
        return (1, self.config.space.rows(horizon), dim)

    @property
    def noise_dim(self) -> int:
        """D: coefficients that the network chooses."""
        return self.noise_shape[1] * self.noise_shape[2]

    def encode(self, obs: Mapping[str, Tensor]) -> Context:
        """The base's encoding of physical observations, name -> (B, T, ...)."""
        return self.base.encode(obs)

    def features(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B F"]:
        """What the network sees."""
        return self.encode({name: value.to(self.device) for name, value in obs.items()}).features

    def choose(self, features: Float[Tensor, "B F"], noise: Float[Tensor, "B 1 R A"]) -> Float[Tensor, "B 1 H A"]:
        """The base's initial noise; `noise` is standard normal."""
        if self.config.sample:
            chosen = self.network.sample(features, noise.to(self.dtype).flatten(1))[0]
        else:
            chosen = self.network.mode(features)
        return self.expand(chosen)

    def expand(self, chosen: Float[Tensor, "B D"]) -> Float[Tensor, "B 1 H A"]:
        """Initial noise from the network's choice in (-1, 1)."""
        return self.config.space.expand(self.config.space.bound * chosen, self.base.noise_shape[1])

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B 1 R A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Physical action chunks for physical observations, name -> (B, T, ...)."""
        features = self.features(obs)
        if noise is None:
            noise = self.noise(len(features), generator)
        return self.base.act(obs, self.choose(features, noise))

    def forward(self, features: Float[Tensor, "B F"], noise: Float[Tensor, "B 1 R A"]) -> Float[Tensor, "B H A"]:
        """Normalised features and noise to physical actions; what is exported, where the base can be.

        Raises:
            UserError: for a base from outside.
        """
        if not isinstance(self.base, Policy):
            raise UserError(
                "its base is a file or function, so only the adapter can be exported: to a path that ends in .overlay"
            )
        return self.base.forward(features, self.choose(features, noise))


def steerable(base: Base, steps: int | None = None) -> Base:
    """The base with initial noise alone, by its own steps or by `steps` ones.

    Raises:
        UserError: for a base that takes no noise, or takes some at every step and is no `Policy`.
    """
    shape = getattr(base, "noise_shape", None)
    if not shape or len(shape) != 3 or min(shape) < 1:
        raise UserError("the base takes no noise, so nothing can steer it: give its file or function a noise input")
    if isinstance(base, Policy):
        sampler = base.config.sampler
        if sampler.deterministic and steps in (None, sampler.steps):
            return base
        steps = sampler.steps if steps is None else steps
        return base.with_sampler(sampler.without_noise(steps))
    if steps is not None:
        raise UserError("a black box walks its chain in its own steps: leave out the number of steps")
    if shape[0] != 1:
        raise UserError(f"the base draws noise {shape[0]} times per decision: export it with --eta 0 to steer it")
    return base
