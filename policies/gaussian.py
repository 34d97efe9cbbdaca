"""Squashed Gaussian policies (Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905, App. C).

action = tanh(u), u ~ N(mean, std^2): one draw, no chain. Soft actor-critic learns them, as a policy of its own, over
the noise of a frozen policy, or as a correction to it. Shapes: B batch, F features, D flat action, H horizon,
A action dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..errors import UserError
from ..shapes import Float
from ..spec import PolicySpec, split_pictures
from .activation import Activation, activation
from .critic import LayerNorm
from .module import ActorModule
from .network import check_widths
from .normalizer import Normalizer
from .policy import ACTION, Context
from .sampler import LOG_2PI


@dataclass(frozen=True)
class GaussianMLP:
    """A plain MLP to a mean and a log standard deviation per element; `build` makes it."""

    hidden: tuple[int, ...] = (256, 256, 256)
    activation: Activation = "relu"
    layer_norm: LayerNorm = "none"
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    """log standard deviations are clamped to this"""
    last_gain: float = 1.0
    """factor on the last layer's first weights; 0: the mean begins at 0 in every state, as corrections should"""

    def __post_init__(self) -> None:
        check_widths(self.hidden)

    def build(self, features: int, action: int) -> TanhGaussian:
        """The network for F = features and D = action."""
        return TanhGaussian(self, features, action)


class TanhGaussian(nn.Module):
    """Distribution over actions in (-1, 1)."""

    def __init__(self, config: GaussianMLP, features: int, action: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for width_in, width in zip((features, *config.hidden), config.hidden, strict=False):
            norm, act = nn.LayerNorm(width), activation(config.activation)
            order = {"none": [act], "before": [norm, act], "after": [act, norm]}[config.layer_norm]
            layers += [nn.Linear(width_in, width), *order]
        last = nn.Linear((features, *config.hidden)[-1], 2 * action)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter *= config.last_gain
        self.trunk = nn.Sequential(*layers, last)

    def forward(self, features: Float[Tensor, "B F"]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Mean and log standard deviation before the squashing."""
        mean, log_std = self.trunk(features).chunk(2, 1)
        return mean, log_std.clamp(*self.config.log_std_range)

    def sample(
        self, features: Float[Tensor, "B F"], eps: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, " B"]]:
        """Actions from standard normal `eps`, differentiable, and their log-density."""
        mean, log_std = self(features)
        u = torch.addcmul(mean, log_std.exp(), eps)
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which does not lose digits where tanh(u) is near 1.
        terms = 2 * (u + softplus(-2 * u)) - log_std - 0.5 * eps.square()
        return u.tanh(), terms.sum(1) - eps.shape[1] * (0.5 * LOG_2PI + 2 * math.log(2))

    def mode(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """The action of the mean."""
        return self(features)[0].tanh()


@dataclass(frozen=True)
class GaussianConfig:
    """A policy made of a squashed Gaussian alone; `build` makes it."""

    network: GaussianMLP = field(default_factory=GaussianMLP)
    sample: bool = False
    """act by a draw; otherwise by the mode"""

    def build(self, spec: PolicySpec) -> GaussianActor:
        """The actor for these observations and actions; its normaliser is still to be set."""
        return GaussianActor(self, spec)


class GaussianActor(ActorModule):
    """An actor like any policy: (observation, noise) -> chunk. The noise counts only where it samples."""

    def __init__(self, config: GaussianConfig, spec: PolicySpec) -> None:
        super().__init__()
        if pictures := split_pictures(spec.obs)[0]:
            raise UserError(
                f"a Gaussian actor has no encoder for '{next(iter(pictures))}': take an environment without pictures, "
                "or tune a cloned policy by dppo or reinflow"
            )
        self.config, self.spec = config, spec
        self.normalizer = Normalizer({**spec.obs, ACTION: spec.action})
        self.network = config.network.build(self.feature_dim, spec.horizon * spec.action.dim)

    @property
    def feature_dim(self) -> int:
        """F: length of the normalised, flat observation."""
        return self.spec.n_obs_steps * sum(math.prod(s.shape) for s in self.spec.obs.values())

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(1, H, A): Gaussian numbers that one decision consumes."""
        return (1, self.spec.horizon, self.spec.action.dim)

    def features(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B F"]:
        """Physical observations, name -> (B, T, ...), normalised and flat.

        Raises:
            UserError: for a missing observation.
        """
        for name in self.spec.obs:
            if name not in obs:
                raise UserError(f"observation '{name}' is missing: the policy expects {list(self.spec.obs)}")
        return torch.cat([self.normalizer.normalize(name, obs[name]).flatten(1) for name in self.spec.obs], 1)

    def encode(self, obs: Mapping[str, Tensor]) -> Context:
        """`features`, as a policy's."""
        features = self.features(obs)
        return Context(features, features)

    def draw(self, features: Float[Tensor, "B F"], eps: Float[Tensor, "B D"]) -> Float[Tensor, "B H A"]:
        """A sampled chunk in (-1, 1)."""
        return self.network.sample(features, eps)[0].unflatten(1, self.noise_shape[1:])

    def mode(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B H A"]:
        """The most central chunk, in (-1, 1)."""
        return self.network.mode(features).unflatten(1, self.noise_shape[1:])

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B 1 H A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Physical action chunks for physical observations, name -> (B, T, ...)."""
        features = self.features({name: value.to(self.device) for name, value in obs.items()})
        if noise is None and self.config.sample:
            noise = self.noise(len(features), generator)
        return self.forward(features, noise)

    def forward(self, features: Float[Tensor, "B F"], noise: Float[Tensor, "B 1 H A"] | None) -> Float[Tensor, "B H A"]:
        """Normalised features and noise to physical actions; what is exported."""
        if self.config.sample and noise is not None:
            return self.normalizer.denormalize(ACTION, self.draw(features, noise.to(self.dtype).flatten(1)))
        return self.normalizer.denormalize(ACTION, self.mode(features))
