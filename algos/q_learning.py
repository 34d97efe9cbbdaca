"""What Q-learning with diffusion and flow policies shares: critics, their targets, slow copies, acting.

The policy is cloned from the replay's actions, critics are learned by bootstrapping, and the two meet where actions
are chosen: `dql.py` climbs Q with gradients, `idql.py` ranks candidates by it. Critics see normalised observations
and the whole executed chunk, normalised. Shapes: B batch, N slots, n = H actions per decision, A action dim.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..envs.vector import VectorEnv
from ..errors import UserError, at_least, fractions, positive, positive_or_none
from ..policies.best_of import BestOf, BestOfConfig
from ..policies.critic import QMLP, QEnsemble
from ..policies.policy import ACTION, Policy
from ..shapes import Float
from ..spec import EnvSpec
from .ema import update_average
from .offpolicy import OffPolicySettings


@dataclass(frozen=True, kw_only=True)
class QLearning(OffPolicySettings):
    """Hyperparameters of every method of the family."""

    warmup: int = 5_000
    """decisions, over all slots, before the first gradient step (IDQL, QC)"""
    demo_share: float = 0.5
    critic: QMLP = field(default_factory=QMLP)
    lr: float = 3e-4
    """of the policy; Adam"""
    critic_lr: float = 3e-4
    gamma: float = 0.99
    gamma_per_step: bool = True
    """discount per environment step inside a chunk (Q-chunking); False: per decision. The same for chunks of one"""
    reward_scale: float = 1.0
    """of the rewards that critics learn from: one that brings returns to about 10 is learned soonest"""
    tau: float = 0.005
    """share of the critic that its target takes up per gradient step"""
    candidates: int = 1
    """chunks among which Q chooses when acting"""
    temperature: float | None = None
    """of that choice; None: the best"""
    act_after: int = 1_000
    """gradient steps until what is learned acts, the critic's choice or a student; until then the policy itself does"""
    explore_std: float = 0.0
    """normal noise added to normalised actions while exploring, beside the policy's own"""
    ema_decay: float = 0.995
    """of the policy's slow copy, per update"""
    ema_every: int = 5
    """gradient steps between updates of the slow copy"""
    ema_start: int = 0
    """gradient steps before the slow copy moves"""
    max_grad_norm: float | None = None
    """bound of the gradients' norm, of policy and critics each"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "candidates", "ema_every")
        at_least(0, self, "lr", "critic_lr", "explore_std", "act_after")
        fractions(self, "gamma", "tau", "ema_decay")
        positive(self, "reward_scale")
        positive_or_none(self, "max_grad_norm")

    def wrap(self, base: Any, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment itself: these methods act in it directly."""
        return env

    @property
    def learns_to_act(self) -> bool:
        """What acts in the end is more than the policy."""
        return self.candidates > 1

    def require_steps(self, grad_steps: int) -> None:
        """Refuse a run that ends before what it learns has acted."""
        if self.learns_to_act and grad_steps <= self.act_after:
            raise UserError(
                f"act_after {self.act_after} takes all of the run's {grad_steps} gradient steps and what is learned "
                "would never act: lower algo.act_after or raise budget.iterations or --offline-steps"
            )

    def _copy(self, base: Any, spec: EnvSpec) -> Policy:
        """A trainable copy of a base that fits the environment and this family.

        Raises:
            UserError: for an actor without a network to train, and for chunks that are not executed whole.
        """
        if not isinstance(base, Policy):
            raise UserError(
                f"{self._name} trains the network of its base, a {type(base).__name__} has none: use a policy"
            )
        if base.noise_shape[1] != base.spec.n_action_steps:
            raise UserError(
                f"{self._name} needs chunks that are executed whole, for its critic values them: n_action_steps "
                f"{base.spec.n_action_steps} must equal horizon {base.spec.horizon}, past_actions be 0"
            )
        if base.prefix is not None:
            raise UserError(
                f"{self._name} trains one network, but a frozen one makes the first steps of this policy: "
                "start from its base, or distill it"
            )
        base.spec.check_env(spec)
        base.normalizer.require_fitted()
        return copy.deepcopy(base).requires_grad_()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _critic(self, policy: Policy) -> QEnsemble:
        chunk = policy.spec.horizon * policy.spec.action.dim
        return self.critic.build(policy.feature_dim, chunk).to(policy.device, policy.dtype)

    def _actor(self, policy: Policy, target: QEnsemble, how: Literal["min", "mean"]) -> Policy | BestOf:
        if self.candidates == 1:
            return policy
        config = BestOfConfig(policy.config, self.critic, self.candidates, self.temperature, how)
        return BestOf(config, policy, target)

    @torch.no_grad()
    def act(
        self, state: QState, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N n A"], dict[str, Tensor]]:
        """Exploring actions in physical units, and the normalised ones as `extras["action"]`."""
        actor = state.actor
        action = actor.normalizer.normalize(ACTION, actor.act(obs, generator=generator))
        if self.explore_std > 0:
            noise = torch.randn(action.shape, generator=generator, device=action.device, dtype=action.dtype)
            action = action + self.explore_std * noise
        action = action.clamp(-1, 1)
        return actor.normalizer.denormalize(ACTION, action), {"action": action}

    def follow(self, state: QState) -> None:
        """Slow copies, after a gradient step."""
        update_average(state.target, state.critic, 1 - self.tau)
        moves = state.step >= self.ema_start and state.step % self.ema_every == 0
        if state.average is not None and moves:
            update_average(state.average, state.policy, self.ema_decay)
        state.step += 1


@dataclass
class QState:
    """Networks and optimisers between updates; what a method does not use is None."""

    policy: Policy
    """learns from actions in the replay"""
    critic: QEnsemble
    target: QEnsemble
    """slow copy of the critic"""
    final: Policy | BestOf
    """what acts once it is `ready`; shares weights with the rest"""
    optimizer: torch.optim.Optimizer
    """of the policy, and of the student if there is one"""
    critic_optimizer: torch.optim.Optimizer
    average: Policy | None = None
    """slow copy of the policy"""
    student: Policy | None = None
    """one-step policy beside it"""
    value: QEnsemble | None = None
    ready: int = 0
    """gradient steps until `final` acts; until then the policy does"""
    step: int = 0
    """gradient steps done"""

    @property
    def actor(self) -> Policy | BestOf:
        """What acts, is evaluated and saved."""
        return self.final if self.step >= self.ready else self.policy

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        names = ("policy", "critic", "target", "average", "student", "value")
        return {name: module for name in names if (module := getattr(self, name)) is not None}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What has moments."""
        return {"policy": self.optimizer, "critic": self.critic_optimizer}

    def extra(self) -> dict[str, Any]:
        """The rest of the state."""
        return {"step": self.step}

    def load_extra(self, extra: dict[str, Any]) -> None:
        """Restore what `extra` returned."""
        self.step = extra["step"]
