"""Implicit Q-learning with a diffusion or flow policy. Hansen-Estruch et al. 2023, https://arxiv.org/abs/2304.10573.

Three parts that never touch while learning: V(obs) is an upper expectile of Q over the data's actions, Q bootstraps
from V and so never asks about other actions (IQL, Kostrikov et al. 2021), and the policy clones the data. They meet
when acting: of N samples of the policy, the one that Q values most. With a flow policy it is IFQL (Park et al. 2025).
Shapes: B batch, E ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..policies.critic import QMLP, aggregate
from ..shapes import Float
from ..spec import EnvSpec
from .descent import adam, descend
from .ema import average_of
from .q_learning import QLearning, QState
from .replay import Experience
from .td import chunk_return, expectile_loss, td_loss


@dataclass(frozen=True, kw_only=True)
class IDQL(QLearning):
    """The hyperparameters are the fields; defaults are IDQL's official ones for locomotion."""

    expectile: float = 0.7
    """of Q that V estimates: 0.5 the mean, 1 the maximum (0.9: antmaze, IFQL)"""
    critic: QMLP = field(default_factory=lambda: QMLP((256, 256), "relu", 2))
    average: bool = True
    """the policy's slow copy acts; False: the policy (IFQL)"""
    ema_decay: float = 0.999
    ema_every: int = 1
    candidates: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise UserError(f"expectile must lie between 0 and 1, got {self.expectile}: 0.5 is the mean")

    def init(self, base: Any, spec: EnvSpec) -> QState:
        """A copy of the base, critics and the state value.

        Raises:
            UserError: for an actor that is not a policy, or chunks not executed whole.
        """
        policy = self._copy(base, spec)
        critic = self._critic(policy)
        target = average_of(critic)
        value = QMLP(self.critic.hidden, self.critic.activation, 1, self.critic.layer_norm).build(policy.feature_dim)
        value = value.to(policy.device, policy.dtype)
        average = average_of(policy) if self.average else None
        return QState(
            policy,
            critic,
            target,
            self._actor(average or policy, target, "min"),
            adam([policy], self.lr),
            adam([critic, value], self.critic_lr),
            average=average,
            value=value,
            ready=self.act_after if self.learns_to_act else 0,
        )

    def update(self, state: QState, batch: Experience, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of V, Q and policy; metrics stay on the device."""
        metrics = self.critic_step(state, batch) | self.policy_step(state, batch, generator)
        self.follow(state)
        return metrics

    def critic_step(self, state: QState, batch: Experience) -> dict[str, Tensor]:
        """Regress V on the target critic and the critic on V, both as they were before the step."""
        losses = {"value_loss": self.value_loss(state, batch), "critic_loss": self.critic_loss(state, batch)}
        descend(state.critic_optimizer, losses["value_loss"] + losses["critic_loss"], self.max_grad_norm)
        return {name: loss.detach() for name, loss in losses.items()}

    def value_loss(self, state: QState, batch: Experience) -> Float[Tensor, ""]:
        """V follows an expectile of the target critic's least member (IQL, Eq. 5)."""
        assert state.value is not None
        features = state.policy.encode(batch.obs).features
        with torch.no_grad():
            q = aggregate(state.target(features, batch.action.to(features.dtype)), "min")
        return expectile_loss(q - state.value(features)[0], self.expectile)

    def critic_loss(self, state: QState, batch: Experience) -> Float[Tensor, ""]:
        """Q follows the reward and the value of the next observation (IQL, Eq. 6)."""
        assert state.value is not None
        features = state.policy.encode(batch.obs).features
        reward, discount = chunk_return(batch, self.gamma, self.gamma_per_step, self.reward_scale)
        with torch.no_grad():
            target = reward + discount * state.value(state.policy.encode(batch.next_obs).features)[0]
        return td_loss(state.critic(features, batch.action.to(features.dtype)), target)

    def policy_step(self, state: QState, batch: Experience, generator: torch.Generator) -> dict[str, Tensor]:
        """Clone the data's actions."""
        context = state.policy.encode(batch.obs)
        data = batch.action.to(context.features.dtype)
        loss = state.policy.config.objective.loss(state.policy, context, data, generator).mean()
        descend(state.optimizer, loss, self.max_grad_norm)
        return {"bc_loss": loss.detach()}


METHODS = {
    "idql": IDQL(),
    "ifql": IDQL(expectile=0.9, critic=QMLP((512, 512, 512, 512), "gelu", 2, "after"), average=False, candidates=32),
}
"""Published methods by name; sources: their official code"""
