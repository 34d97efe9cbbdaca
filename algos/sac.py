"""Soft actor-critic with a learned temperature. Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905.

It learns a squashed Gaussian in any environment whose actions have limits: a plain one, the noise of a frozen policy,
a correction to one. Shapes: B batch, E ensemble, F features, D flat action, N slots, n executed actions, A action dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..envs.vector import VectorEnv
from ..errors import UserError, at_least, fractions, positive, positive_or_none
from ..policies.actor import Actor
from ..policies.critic import QMLP, Aggregate, aggregate
from ..policies.gaussian import GaussianConfig, GaussianMLP
from ..policies.normalizer import Normalizer
from ..policies.policy import ACTION
from ..shapes import Float
from ..spec import ArraySpec, EnvSpec, PolicySpec
from .descent import descend
from .ema import average_of, update_average
from .offpolicy import OffPolicySettings
from .replay import Experience
from .td import chunk_return, td_loss


@dataclass
class SACState:
    """Actor, critics, temperature and their optimisers."""

    actor: Any
    """a `GaussianActor`, or another actor with `features` and a squashed Gaussian `network`"""
    q: nn.Module
    """(features, action) -> (E, B)"""
    target: nn.Module
    temperature: Temperature
    actor_optimizer: torch.optim.Optimizer
    """moves the temperature too"""
    critic_optimizer: torch.optim.Optimizer
    step: int = 0
    decisions: int = 0
    """made so far, over all slots"""

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        return {"actor": self.actor, "q": self.q, "target": self.target, "temperature": self.temperature}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What has moments."""
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}

    def extra(self) -> dict[str, Any]:
        """The rest of the state."""
        return {"step": self.step, "decisions": self.decisions}

    def load_extra(self, extra: dict[str, Any]) -> None:
        """Restore what `extra` returned."""
        self.step, self.decisions = extra["step"], extra["decisions"]


class Temperature(nn.Module):
    """alpha: what one nat of entropy is worth, in units of the reward."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))


@dataclass(frozen=True, kw_only=True)
class SAC(OffPolicySettings):
    """The hyperparameters are the fields; defaults are the paper's."""

    actor: GaussianMLP = field(default_factory=lambda: GaussianMLP((256, 256), "relu"))
    critic: QMLP = field(default_factory=lambda: QMLP((256, 256), "relu"))
    aggregate: Aggregate = "min"
    """how the ensemble's values become one, in the backup and for the actor"""
    gamma: float = 0.99
    gamma_per_step: bool = False
    """`gamma` discounts environment steps; otherwise decisions"""
    reward_scale: float = 1.0
    """of the rewards that critics learn from: one that brings returns to about 10 is learned soonest"""
    tau: float = 0.005
    """share of the critics that enters their targets at every step"""
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    alpha_lr: float = 3e-4
    alpha: float = 1.0
    """first temperature"""
    learn_alpha: bool = True
    """move the temperature until the policy has `target_entropy`; otherwise it stays"""
    target_entropy: float | None = None
    """nats, of actions in (-1, 1); None: minus the number of elements"""
    alpha_floor: float = 0.0
    """the temperature falls no lower"""
    entropy_in_backup: bool = True
    """the next state is worth its entropy too"""
    max_grad_norm: float | None = None
    """bound of the gradients' norm, of actor and critics each"""
    sample: bool = False
    """the policy that is evaluated and saved draws its actions; otherwise it takes the mode"""
    n_action_steps: int = 1
    """actions per decision in a plain environment"""
    n_obs_steps: int = 1
    """observations the policy sees in a plain environment without a base policy"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "n_action_steps", "n_obs_steps")
        at_least(0, self, "actor_lr", "critic_lr", "alpha_lr", "alpha_floor")
        fractions(self, "gamma", "tau")
        positive(self, "reward_scale")
        positive_or_none(self, "max_grad_norm")
        if not self.alpha > 0:
            raise UserError(
                f"alpha must be positive, got {self.alpha}: a small one such as 1e-8 explores hardly at all"
            )

    def wrap(self, base: Actor | None, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment itself."""
        return env

    def init(self, base: Actor | None, spec: EnvSpec) -> SACState:
        """A fresh policy for a plain environment; of `base` it takes the history and the observations' normaliser.

        Raises:
            UserError: where actions have no limits.
        """
        history = base.spec.n_obs_steps if base is not None else self.n_obs_steps
        n, env = self.n_action_steps, {"env": spec.id, "env_kwargs": spec.kwargs}
        own = PolicySpec(spec.obs, spec.action, n, n, history, spec.control_hz, **env)
        return self.start(own, getattr(base, "normalizer", None), spec.device)

    def start(self, spec: PolicySpec, normalizer: Normalizer | None, device: str | torch.device) -> SACState:
        """A fresh policy for observations and chunks of `spec`, whose actions have limits.

        Observations that `normalizer` knows are normalised by it, others taken as they are.

        Raises:
            UserError: where actions have no limits.
        """
        actor = GaussianConfig(self.actor, self.sample).build(spec)
        _fit(actor.normalizer, spec, normalizer)
        q = self.critic.build(actor.feature_dim, spec.horizon * spec.action.dim)
        return SACState(**self.learners(actor.to(device), q.to(device)))

    def learners(self, actor: Any, q: nn.Module) -> dict[str, Any]:
        """The fields of a fresh state, for an actor with a `network` and critics of any make."""
        temperature = Temperature(max(self.alpha, self.alpha_floor)).to(actor.device)
        groups = [
            {"params": list(actor.network.parameters()), "lr": self.actor_lr},
            {"params": list(temperature.parameters()), "lr": self.alpha_lr},
        ]
        actor_optimizer = torch.optim.Adam(groups, fused=True)
        critic_optimizer = torch.optim.Adam(q.parameters(), lr=self.critic_lr, fused=True)
        return {
            "actor": actor,
            "q": q,
            "target": average_of(q),
            "temperature": temperature,
            "actor_optimizer": actor_optimizer,
            "critic_optimizer": critic_optimizer,
        }

    # Acting

    @torch.no_grad()
    def act(
        self, state: SACState, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Explore: physical chunks (N, n, A), and beside them the normalised ones; uniform over the limits at first."""
        actor, slots = state.actor, len(next(iter(obs.values())))
        if self.warmed_up(state, slots):
            features = actor.features(obs)
            eps = torch.randn(slots, math.prod(actor.noise_shape), generator=generator, device=actor.device)
            action = actor.draw(features, eps)
        else:
            action = 2 * torch.rand(slots, *actor.noise_shape[1:], generator=generator, device=actor.device) - 1
        return actor.normalizer.denormalize(ACTION, action), {"action": action}

    def warmed_up(self, state: SACState, slots: int) -> bool:
        """Count a decision in every slot; the warm-up was over before it."""
        before = state.decisions
        state.decisions += slots
        return before >= self.warmup

    # Learning

    def update(self, state: SACState, batch: Experience, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of critics, actor and temperature, in this order."""
        features, following = state.actor.features(batch.obs), state.actor.features(batch.next_obs)
        size = len(batch), batch.action[0].numel()
        eps = torch.randn(2, *size, generator=generator, device=features.device)
        reward, discount = chunk_return(batch, self.gamma, self.gamma_per_step, self.reward_scale)
        target = torch.addcmul(reward, discount, self.next_value(state, following, eps[0], generator))
        metrics = self.critic_step(state, features, batch.action, target)
        metrics |= self.actor_step(state, features, eps[1], state.q, generator)
        update_average(state.target, state.q, 1 - self.tau)
        state.step += 1
        return metrics

    @torch.no_grad()
    def next_value(
        self, state: SACState, features: Float[Tensor, "B F"], eps: Float[Tensor, "B D"], generator: torch.Generator
    ) -> Float[Tensor, " B"]:
        """Target critics' value of a draw in each state, with its entropy if that counts."""
        action, log_prob = state.actor.network.sample(features, eps)
        value = aggregate(state.target(features, action), self.aggregate, generator)
        if not self.entropy_in_backup:
            return value
        return value - state.temperature.log_alpha.exp() * log_prob

    def critic_step(
        self, state: SACState, features: Float[Tensor, "B F"], action: Tensor, target: Float[Tensor, " B"]
    ) -> dict[str, Tensor]:
        """Move every critic towards the target."""
        q = state.q(features, action)
        loss = 0.5 * td_loss(q, target)
        descend(state.critic_optimizer, loss, self.max_grad_norm)
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def actor_step(
        self,
        state: SACState,
        features: Float[Tensor, "B F"],
        eps: Float[Tensor, "B D"],
        q: nn.Module,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Move the actor up the critics' values and its entropy, and the temperature towards its target."""
        log_alpha = state.temperature.log_alpha
        action, log_prob = state.actor.network.sample(features, eps)
        entropy = -log_prob.detach().mean()
        if self.learn_alpha:
            target = -float(eps.shape[1]) if self.target_entropy is None else self.target_entropy
            log_alpha.grad = entropy - target  # of log_alpha (entropy - target)
        alpha = log_alpha.detach().exp()
        loss = (alpha * log_prob - aggregate(q(features, action), self.aggregate, generator)).mean()
        # Only the actor's gradients are computed: those of the critics' weights would be thrown away.
        descend(state.actor_optimizer, loss, self.max_grad_norm, state.actor.network.parameters())
        if self.alpha_floor > 0:
            log_alpha.data.clamp_(min=math.log(self.alpha_floor))
        return {"actor_loss": loss.detach(), "alpha": alpha, "entropy": entropy}


def _fit(normalizer: Normalizer, spec: PolicySpec, base: Normalizer | None) -> None:
    """Observations as in `base` where it knows them, else unchanged; actions from their limits."""
    known = base.state_dict() if base is not None else {}
    for name, array in spec.obs.items():
        normalizer.set(name, np.zeros(array.shape), np.ones(array.shape))
    own = normalizer.state_dict()
    normalizer.load_state_dict({key: known.get(key, value) for key, value in own.items()})
    low, high = _limits(spec.action)
    normalizer.set(ACTION, (low + high) / 2, (high - low) / 2)


def _limits(action: ArraySpec) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest action.

    Raises:
        UserError: where an element has none.
    """
    low, high = (np.asarray(np.inf if bound is None else bound, np.float64) for bound in (action.low, action.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise UserError(
            "soft actor-critic needs actions with finite limits: give the environment's action spec low, high"
        )
    return low, high
