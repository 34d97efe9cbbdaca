"""A frozen policy corrected at every control step by a small network (ResiP, Ankile et al. 2024, arXiv:2407.16677).

The base plans chunks; while one is played, the network sees each new observation and the base's action for it:

    executed = base_action + scale * u(obs, base_action)      (normalised units)

Shapes: B rows, T observations, F features, K denoising steps, H horizon, n executed actions, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Bool, Float
from ..spec import PolicySpec
from .actor import Base, Outside, config_of
from .gaussian import GaussianMLP
from .module import ActorModule
from .normal import NormalMLP
from .normalizer import Normalizer
from .playback import Playback, Remembering
from .policy import ACTION, Context, Policy, PolicyConfig

BASE_ACTION = "base_action"
"""the observation that holds what the base would do now, normalised"""


@dataclass(frozen=True)
class ResidualConfig:
    """What a corrected policy is made of; `build` makes it."""

    base: PolicyConfig | Outside | None
    """None: a base that nothing finds again, to be handed over when building"""
    network: NormalMLP | GaussianMLP = field(default_factory=NormalMLP)
    scale: float = 0.1
    """of the correction, in normalised actions"""
    obs_clip: float | None = None
    """bound of the normalised observations that the network sees"""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise UserError(f"the scale of the residual must be positive, got {self.scale:g}: 0.03 to 0.3 is usual")

    def build(self, spec: PolicySpec, base: Base | None = None) -> Residual:
        """The policy; without `base` its weights are still to be loaded.

        Raises:
            UserError: where a base from outside is not given.
        """
        if base is None:
            if self.base is None:
                raise UserError("this policy corrects one from outside: give that to ResidualConfig.build(spec, base)")
            base = self.base.open(spec) if not isinstance(self.base, PolicyConfig) else self._policy(self.base, spec)
        return Residual(self, base)

    def _policy(self, base: PolicyConfig, spec: PolicySpec) -> Policy:
        return Policy(base, replace(spec, horizon=base.horizon, n_action_steps=base.n_action_steps))


class Residual(ActorModule, Remembering):
    """An actor that remembers: each row plays its own chunk. `network` corrects, `base` is never trained."""

    def __init__(self, config: ResidualConfig, base: Base) -> None:
        super().__init__()
        self.base = base
        self.config, self.spec = config, replace(base.spec, horizon=1, n_action_steps=1)
        self.network = config.network.build(self.feature_dim, base.spec.action.dim).to(base.device, base.dtype)

    @property
    def normalizer(self) -> Normalizer:
        """The base's."""
        return self.base.normalizer

    @property
    def feature_dim(self) -> int:
        """F + A: what the network sees."""
        return self.base.feature_dim + self.base.spec.action.dim

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """The base's: consumed by rows that are `due`."""
        return self.base.noise_shape

    def features(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B F"]:
        """What the network sees: physical observations (B, T, ...), and `base_action` (B, T, A), the newest alone."""
        features = self.base.encode({name: obs[name].to(self.device) for name in self.spec.obs}).features
        if self.config.obs_clip is not None:
            features = features.clamp(-self.config.obs_clip, self.config.obs_clip)
        return torch.cat([features, obs[BASE_ACTION][:, -1].to(features)], 1)

    def encode(self, obs: Mapping[str, Tensor]) -> Context:
        """`features`, as a policy's."""
        features = self.features(obs)
        return Context(features, features)

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B N H A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B 1 A"]:
        """The next action of every row, physical; noise of rows that are not due is ignored."""
        playback = self.playing(len(next(iter(obs.values()))), self.base.spec.n_action_steps)
        plan(self.base, playback, playback.due, obs, noise, generator)
        planned = playback.action()
        playback.advance()
        base_action = self.normalizer.normalize(ACTION, planned)
        u = self.network.mode(self.features({**obs, BASE_ACTION: base_action[:, None]}))
        return (planned + shift(self.normalizer, self.config.scale * u))[:, None]


def corrected(base: Base, network: NormalMLP | GaussianMLP, scale: float, obs_clip: float | None = None) -> Residual:
    """The base under a fresh correction."""
    return ResidualConfig(config_of(base), network, scale, obs_clip).build(base.spec, base)


def plan(
    base: Base,
    playback: Playback,
    rows: Bool[Tensor, " B"],
    obs: Mapping[str, Tensor],
    noise: Float[Tensor, "B N H A"] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Let the base plan for these rows, in one call."""
    if not rows.any():
        return
    index = rows.nonzero().squeeze(1)
    chosen = {name: value[index.to(value.device)] for name, value in obs.items()}
    own = None if noise is None else noise[index.to(noise.device)]
    playback.start(index, base.act(chosen, own, generator)[:, : playback.chunk.shape[1]])


def shift(normalizer: Normalizer, delta: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """A difference of normalised actions in physical units; exactly 0 for 0."""
    return normalizer.denormalize(ACTION, delta) - normalizer.denormalize(ACTION, torch.zeros_like(delta))
