"""ResiP: PPO on an unbounded correction to a frozen policy. Ankile et al. 2024, https://arxiv.org/abs/2407.16677.

A small Gaussian network corrects every control step, beginning at zero; it acts in the `ResidualEnv`.
Shapes: B rows of a minibatch, M decisions, N slots, F features, A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ..policies.normal import Normal, NormalMLP, ValueMLP
from ..policies.residual import Residual, corrected
from ..shapes import Float, Int
from .decisions import Decisions, normalized
from .offpolicy import VectorEnv
from .onpolicy import OnPolicy
from .ppo import clipped_surrogate, micro_batches, ratio_statistics
from .residual_env import ResidualEnv
from .returns import RewardScale
from .state import ActorCriticState


@dataclass
class ResiPState(ActorCriticState):
    """Corrected policy, critic and their optimisers."""

    policy: Residual  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def actor(self) -> Residual:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is evaluated and saved."""
        return self.policy

    @property
    def network(self) -> Normal:
        """The correction."""
        return cast(Normal, self.policy.network)


@dataclass(frozen=True)
class ResiP(OnPolicy[ResiPState, "Rows"]):
    """The hyperparameters are the fields; defaults are the official ones. A decision is one environment step.

    Officially both learning rates also fall to 0 along one cosine over the run (`actor_lr_min`, `critic_lr_min` and
    `lr_cycle` give that), time limits count as terminations (`timeout`), and the base walks 4 DDIM steps.
    """

    network: NormalMLP = field(default_factory=NormalMLP)
    scale: float = 0.1
    """of the correction, in normalised actions"""
    obs_clip: float | None = 3.0
    """bound of the normalised observations that actor and critic see"""
    gamma: float = 0.999
    clip: float = 0.2
    epochs: int = 50
    """most; the official runs stop earlier by `target_kl`"""
    minibatch: int = 1_000_000
    """official: the whole rollout at once"""
    actor_lr: float = 3e-4
    critic_lr: float = 5e-3
    critic: ValueMLP = field(default_factory=ValueMLP)  # pyright: ignore[reportIncompatibleVariableOverride]
    """value of the base's observation and action"""
    value_coef: float = 1.0
    entropy_coef: float = 0.0
    target_kl: float = 0.1
    max_grad_norm: float | None = 1.0
    scale_rewards: bool = False

    def wrap(self, base: Any, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment whose action is the correction."""
        return ResidualEnv(env, base, self.scale, bounded=False)

    def init(self, base: Any) -> ResiPState:
        """A correction that is zero everywhere, and a critic."""
        actor = corrected(base, self.network, self.scale, self.obs_clip)
        critic = self.critic.build(actor.feature_dim).to(actor.device, actor.dtype)
        learned = [p for p in actor.network.parameters() if p.requires_grad]
        settings = {"eps": 1e-5, "weight_decay": 1e-6, "fused": True}
        actor_optimizer = torch.optim.AdamW(learned, lr=self.actor_lr, **settings)
        critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=self.critic_lr, **settings)
        return ResiPState(actor, critic, actor_optimizer, critic_optimizer, RewardScale())

    @torch.no_grad()
    def act(
        self, state: ResiPState, obs: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N 1 A"], dict[str, Tensor]]:
        """Exploring corrections, and what `update` needs of them."""
        features = state.policy.features(obs)
        shape = (len(features), state.policy.spec.action.dim)
        eps = torch.randn(shape, generator=generator, device=features.device, dtype=features.dtype)
        u, log_prob = state.network.sample(features, eps)
        return u[:, None], {"features": features, "u": u, "log_prob": log_prob}

    def samples(self, decisions: Decisions) -> int:
        """All decisions."""
        return len(decisions.returns)

    def minibatch_of(self, decisions: Decisions, rows: Int[Tensor, " B"]) -> Rows:
        """These decisions, their advantages normalised over the minibatch."""
        return Rows(decisions, rows, normalized(decisions.advantage[rows]))

    def log_ratio(self, state: ResiPState, part: Rows) -> Float[Tensor, " B"]:
        """Of the corrections' likelihood."""
        kept = part.decisions.extras
        new = state.network.log_prob(kept["features"][part.decision], kept["u"][part.decision])
        return new - kept["log_prob"][part.decision]

    def policy_loss(self, state: ResiPState, part: Rows) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Clipped surrogate and entropy bonus per row."""
        log_ratio = self.log_ratio(state, part)
        entropy = state.network.entropy()
        loss = clipped_surrogate(log_ratio, part.advantage, self.clip) - self.entropy_coef * entropy
        sums = ratio_statistics(log_ratio, self.clip)
        return loss, sums | {"entropy": entropy.detach() * len(part.decision)}


@dataclass(frozen=True)
class Rows:
    """B decisions of a minibatch."""

    decisions: Decisions
    decision: Int[Tensor, " B"]
    advantage: Float[Tensor, " B"]

    @property
    def size(self) -> int:
        """B."""
        return len(self.decision)

    def multiplicity(self, decisions: int) -> Int[Tensor, " M"]:
        """How often each decision of the rollout is here."""
        return torch.bincount(self.decision, minlength=decisions)

    def parts(self, decisions: int | None = None) -> list[Rows]:
        """Micro-batches."""
        columns = zip(*(micro_batches(c, size=decisions) for c in (self.decision, self.advantage)), strict=True)
        return [Rows(self.decisions, *column) for column in columns]
