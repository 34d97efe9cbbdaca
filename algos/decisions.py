"""A rollout's decisions, as on-policy methods learn from them.

Shapes: M decisions, B rows of a minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..policies.policy import Context, Policy
from ..shapes import Float, Int
from .state import ActorCriticState
from .views import Views


@dataclass(frozen=True)
class Decisions:
    """A rollout's M decisions, flat."""

    extras: dict[str, Tensor]
    """name -> (M, ...): what `act` returned beside the action"""
    advantage: Float[Tensor, " M"]
    returns: Float[Tensor, " M"]
    value: Float[Tensor, " M"]
    views: Views | None = None
    """their pictures, where the policy learns to see"""

    def context(self, policy: Policy, rows: Int[Tensor, " B"]) -> Context:
        """Of some decisions, by a policy that made them or learns from them; pictures are encoded anew."""
        return policy.context(self.features[rows] if self.views is None else self.views.features(policy, rows))

    def values(self, state: ActorCriticState, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """What the critic says of some decisions."""
        return state.critic(self.features[rows]) if self.views is None else state.value_of(self.views, rows)

    @property
    def features(self) -> Float[Tensor, "M F"]:
        """Normalised observations: what the critic sees."""
        return self.extras["features"]

    @property
    def latents(self) -> Float[Tensor, "M S1 H A"]:
        """The chains that were drawn."""
        return self.extras["latents"]

    @property
    def log_prob(self) -> Tensor:
        """Recorded while sampling: one number, or one per step and element, as the method likes."""
        return self.extras["log_prob"]


def normalized(advantage: Float[Tensor, " B"], weight: Float[Tensor, " B"] | None = None) -> Float[Tensor, " B"]:
    """Advantages with mean 0 and standard deviation 1 over a minibatch whose rows count `weight` times."""
    if weight is None:
        return (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    total = weight.sum()
    centered = advantage - (weight * advantage).sum() / total
    return centered / (((weight * centered.square()).sum() / (total - 1)).sqrt() + 1e-8)
