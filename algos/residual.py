"""Residual reinforcement learning: a small network corrects a frozen policy at every control step.

- ResiP (Ankile et al. 2024, arXiv:2407.16677): PPO on an unbounded Gaussian correction that begins at zero.
- Policy Decorator (Yuan et al. 2024, arXiv:2412.13630): soft actor-critic on a bounded one, which is switched on
  little by little.

Both act in the `ResidualEnv`. Shapes: B rows of a minibatch, M decisions, N slots, F features, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..policies.actor import Base
from ..policies.critic import QMLP
from ..policies.gaussian import GaussianMLP
from ..policies.normal import Normal, NormalMLP, ValueMLP
from ..policies.policy import Policy
from ..policies.residual import Residual, ResidualConfig
from ..shapes import Float, Int
from ..spec import EnvSpec
from .offpolicy import VectorEnv
from .onpolicy import Decisions, OnPolicy, normalized
from .ppo import clipped_surrogate, micro_batches, ratio_statistics
from .residual_env import ResidualEnv
from .returns import RewardScale
from .sac import SAC, SACState
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

    def parts(self) -> list[Rows]:
        """Micro-batches."""
        columns = zip(micro_batches(self.decision), micro_batches(self.advantage), strict=True)
        return [Rows(self.decisions, *column) for column in columns]


@dataclass(frozen=True)
class PolicyDecorator(SAC):
    """Policy Decorator. Defaults are the official ones for PegInsertion with a diffusion base and 16 environments.

    The original corrects a chunk of four actions at once, from the observation alone. Here every step is corrected,
    by an actor that sees the base's action too: in the middle of a chunk the observation does not tell it. Its log
    standard deviation is clamped to the official range, not squashed into it: it begins at 0 instead of -9.
    """

    actor: GaussianMLP = field(
        default_factory=lambda: GaussianMLP((256, 256, 256), "relu", log_std_range=(-20.0, 2.0), last_gain=0.01)
    )
    critic: QMLP = field(default_factory=lambda: QMLP((256, 256, 256), "relu"))
    critic_sees: Literal["sum", "both"] = "sum"
    """the action that is executed, or the base's and the correction"""
    scale: float = 0.1
    """largest correction, in normalised actions (official: 0.03 to 0.3, by task)"""
    explore_steps: int = 30_000
    """environment steps, over all slots, in which the share of corrected actions rises from 0 to 1 (official: 30 000 to
    8 million, by task)"""
    gamma: float = 0.97**0.25
    """per control step (official: 0.97 per chunk of four)"""
    tau: float = 0.01
    actor_lr: float = 1e-4
    critic_lr: float = 1e-4
    alpha_lr: float = 1e-4
    grad_clip: float | None = 50.0
    batch: int = 1024
    warmup: int = 8_000
    utd: float = 0.25
    train_every: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.explore_steps < 0:
            raise UserError(f"explore_steps must not be negative, got {self.explore_steps}: 0 corrects from the start")

    def wrap(self, base: Any, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment whose action is the correction."""
        return ResidualEnv(env, base, self.scale)

    def init(self, base: Any, spec: EnvSpec) -> SACState:
        """A correction near zero, and critics of the corrected action."""
        actor = corrected(base, self.actor, self.scale, None)
        dim = actor.spec.action.dim
        seen = actor.feature_dim - (dim if self.critic_sees == "sum" else 0)
        q = ResidualQ(self.critic.build(seen, dim), dim, self.scale if self.critic_sees == "sum" else None)
        return SACState(**self.learners(actor, q.to(actor.device, actor.dtype)))

    @torch.no_grad()
    def act(
        self, state: SACState, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Explore: corrections (N, 1, A) in a growing share of the slots, none in the others."""
        features = state.actor.features(obs)
        shape = (len(features), state.actor.spec.action.dim)
        eps = torch.randn(shape, generator=generator, device=features.device, dtype=features.dtype)
        draw = torch.rand(len(features), shape[1] + 1, generator=generator, device=features.device)
        warm = state.decisions >= self.warmup
        u = state.actor.network.sample(features, eps)[0] if warm else 2 * draw[:, 1:].to(features) - 1
        share = min(state.decisions / self.explore_steps, 1.0) if self.explore_steps else 1.0
        state.decisions += len(features)
        u = torch.where(draw[:, :1] < share, u, 0.0)[:, None]
        return u, {"action": u}


class ResidualQ(nn.Module):
    """Critics of corrections; the last A features are the base's action."""

    def __init__(self, q: nn.Module, dim: int, scale: float | None) -> None:
        super().__init__()
        self.q, self.dim, self.scale = q, dim, scale

    def forward(self, features: Float[Tensor, "B F"], u: Tensor) -> Float[Tensor, "E B"]:
        """Value of executing base_action + scale * u; without a scale, of both side by side."""
        if self.scale is None:
            return self.q(features, u)
        obs, base_action = features.split([features.shape[1] - self.dim, self.dim], 1)
        return self.q(obs, base_action + self.scale * u.flatten(1))


def corrected(base: Base, network: NormalMLP | GaussianMLP, scale: float, obs_clip: float | None) -> Residual:
    """The base under a fresh correction."""
    inside = base.config if isinstance(base, Policy) else None
    return ResidualConfig(inside, network, scale, obs_clip).build(base.spec, base)
