"""Best of N: a policy proposes, a critic chooses.

N chunks drawn from a base are ranked by Q(obs, action); the best one acts (Chen et al. 2022, IDQL: Hansen-Estruch et
al. 2023), or one drawn with probability softmax(Q / temperature) (Wang et al. 2022). The base stays as it is: the
divergence from it is at most log N - (N - 1) / N. Shapes: B batch, N candidates, R noise rows of the base, H horizon,
A action dim, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError, at_least
from ..shapes import Float
from ..spec import PolicySpec
from .critic import QMLP, QEnsemble, aggregate
from .module import ActorModule
from .normalizer import Normalizer
from .policy import ACTION, Context, Policy, PolicyConfig


@dataclass(frozen=True)
class BestOfConfig:
    """What a best-of-N actor is made of."""

    base: PolicyConfig
    critic: QMLP = field(default_factory=QMLP)
    candidates: int = 32
    """N: chunks that the base proposes per decision"""
    temperature: float | None = None
    """None: the best candidate; else one drawn from softmax(Q / temperature)"""
    aggregate: Literal["min", "mean"] = "min"
    """of the critic's members"""

    def __post_init__(self) -> None:
        at_least(1, self, "candidates")
        if self.temperature is not None and self.temperature <= 0:
            raise UserError(
                f"temperature must be positive, got {self.temperature}: leave it out for the best candidate"
            )

    def build(self, spec: PolicySpec) -> BestOf:
        """The actor with fresh weights."""
        base = self.base.build(spec)
        return BestOf(self, base, self.critic.build(base.feature_dim, spec.horizon * spec.action.dim))


class BestOf(ActorModule):
    """An actor that asks `base` for N chunks and `critic` for one of them; it shares both modules' weights.

    The noise of a decision is that of its candidates, one after another, and a last row for the draw where the choice
    is random: the same noise gives the same chunk.
    """

    def __init__(self, config: BestOfConfig, base: Policy, critic: QEnsemble) -> None:
        super().__init__()
        self.config, self.base, self.critic = config, base, critic

    @property
    def spec(self) -> PolicySpec:
        """The base's."""
        return self.base.spec

    @property
    def normalizer(self) -> Normalizer:
        """The base's."""
        return self.base.normalizer

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of the noise of one decision: N R rows, one more if the choice is random."""
        rows, horizon, dim = self.base.noise_shape
        return (self.config.candidates * rows + (self.config.temperature is not None), horizon, dim)

    def encode(self, obs: Mapping[str, Tensor]) -> Context:
        """Normalise physical observations, name -> (B, T, ...)."""
        return self.base.encode(obs)

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B N H A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Physical action chunks for physical observations, name -> (B, T, ...)."""
        context = self.encode({name: value.to(self.device) for name, value in obs.items()})
        if noise is None:
            noise = self.noise(len(context.features), generator)
        return self.normalizer.denormalize(ACTION, self.choose(context, noise.to(self.dtype)))

    def choose(self, context: Context, noise: Float[Tensor, "B N H A"]) -> Float[Tensor, "B H A"]:
        """The chosen chunk, normalised.

        Raises:
            UserError: for noise of another shape.
        """
        if tuple(noise.shape[1:]) != self.noise_shape:
            raise UserError(f"noise has shape {tuple(noise.shape)}, expected {('B', *self.noise_shape)}")
        n, rows = self.config.candidates, self.base.noise_shape[0]
        action = propose(self.base, context, noise[:, : n * rows].unflatten(1, (n, rows)))
        q = evaluate(self.critic, context, action)
        index = self._pick(aggregate(q, self.config.aggregate), noise[:, -1, 0, 0])
        return action[torch.arange(len(action), device=action.device), index]

    def _pick(self, q: Float[Tensor, "B N"], draw: Float[Tensor, " B"]) -> Tensor:
        if self.config.temperature is None:
            return q.argmax(1)
        # A standard normal below its own quantile: the inverse of the categorical distribution's cumulative sum.
        share = (q / self.config.temperature).softmax(1).cumsum(1)
        return (share < torch.special.ndtr(draw)[:, None]).sum(1).clamp(max=q.shape[1] - 1)


def propose(base: Policy, context: Context, noise: Float[Tensor, "B N R H A"]) -> Float[Tensor, "B N H A"]:
    """N normalised chunks per row, inside [-1, 1]."""
    batch, n = noise.shape[:2]
    repeated = context.repeat(n) if n > 1 else context
    chain = base.sample(repeated, noise.flatten(0, 1), start=base.config.sampler.steps)
    return chain.action.clamp(-1, 1).unflatten(0, (batch, n))


def evaluate(critic: QEnsemble, context: Context, action: Float[Tensor, "B N H A"]) -> Float[Tensor, "E B N"]:
    """The value of each of N chunks per row."""
    features = context.features.repeat_interleave(action.shape[1], 0) if action.shape[1] > 1 else context.features
    return critic(features, action.flatten(0, 1)).unflatten(1, action.shape[:2])
