"""Policy Decorator: soft actor-critic on a bounded correction to a frozen policy. Yuan et al. 2024, arXiv:2412.13630.

Every control step is corrected, in a share of the steps that grows while exploring; it acts in the `ResidualEnv`.
Shapes: B batch, E ensemble, N slots, F features, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..policies.critic import QMLP
from ..policies.gaussian import GaussianMLP
from ..policies.residual import corrected
from ..shapes import Float
from ..spec import EnvSpec
from .offpolicy import VectorEnv
from .residual_env import ResidualEnv
from .sac import SAC, SACState


@dataclass(frozen=True, kw_only=True)
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
    max_grad_norm: float | None = 50.0
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
        actor = corrected(base, self.actor, self.scale)
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
        share = min(state.decisions / self.explore_steps, 1.0) if self.explore_steps else 1.0
        warm = self.warmed_up(state, len(features))
        u = state.actor.network.sample(features, eps)[0] if warm else 2 * draw[:, 1:].to(features) - 1
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
