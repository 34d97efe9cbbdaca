"""What PPO-like methods share: returns, minibatches, the critic's loss, one gradient step. Schulman et al. 2017.

A method adds how it acts, what one of its samples is (a decision, or a decision and a denoising step) and the loss of
a sample. Shapes: D decisions, N slots, M = D * N, B rows of a minibatch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError, at_least, fractions, positive_or_none
from ..policies.critic import CriticMLP
from ..shapes import Float, Int
from .audit import audit_ratio
from .offpolicy import VectorEnv
from .ppo import explained_variance, mean_metrics, micro_batches, shuffled_minibatches, value_error
from .returns import Timeout, gae
from .rollout import Rollout
from .state import ActorCriticState


@runtime_checkable
class Minibatch(Protocol):
    """Rows that one gradient step learns from."""

    @property
    def size(self) -> int:
        """How many samples it stands for."""
        ...

    @property
    def decision(self) -> Int[Tensor, " B"]:
        """Decision of each row."""
        ...

    def multiplicity(self, decisions: int) -> Int[Tensor, " M"]:
        """How often it holds each decision."""
        ...

    def parts(self) -> Sequence[Any]:
        """Micro-batches."""
        ...


S = TypeVar("S", bound=ActorCriticState)
Mini = TypeVar("Mini", bound=Minibatch)


@dataclass(frozen=True)
class OnPolicy(ABC, Generic[S, Mini]):
    """Hyperparameters of every method that learns from rollouts by a clipped ratio."""

    gamma: float = 0.99
    """discount per decision, not per environment step"""
    gae_lambda: float = 0.95
    clip: float = 0.01
    """clip range of the ratio"""
    epochs: int = 5
    minibatch: int = 50_000
    """samples per gradient step"""
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    actor_lr_min: float | None = None
    """where the learning rate's warm-up starts and its cosine ends; None: constant"""
    critic_lr_min: float | None = None
    lr_warmup: int = 10
    """iterations of linear warm-up"""
    lr_cycle: int = 100
    """iterations from one start of the schedule to the next"""
    critic: CriticMLP = field(default_factory=CriticMLP)
    critic_warmup: int = 0
    """iterations in which only the critic learns"""
    value_coef: float = 0.5
    value_clip: float | None = None
    target_kl: float = 1.0
    """an iteration's updates stop beyond this"""
    max_grad_norm: float | None = None
    """of actor and critic, each"""
    scale_rewards: bool = True
    """divide rewards by the running standard deviation of returns"""
    timeout: Timeout = "bootstrap"
    """how time limits enter returns"""

    def __post_init__(self) -> None:
        at_least(1, self, "epochs")
        at_least(2, self, "minibatch")  # advantages are normalised over it
        at_least(0, self, "actor_lr", "critic_lr", "clip", "target_kl")
        fractions(self, "gamma", "gae_lambda")
        positive_or_none(self, "max_grad_norm", "value_clip")
        if self.lr_warmup >= self.lr_cycle:
            raise UserError(f"lr_warmup {self.lr_warmup} must be shorter than lr_cycle {self.lr_cycle}")

    # What a method says of itself

    def wrap(self, base: Any, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment that the method acts in: `env` itself, or one with `base` inside."""
        return env

    @abstractmethod
    def init(self, base: Any) -> S:
        """The state that learning starts from."""

    @abstractmethod
    def act(
        self, state: S, obs: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N n A"], dict[str, Tensor]]:
        """Exploring actions in physical units, and what `update` needs of them: `features`, `log_prob` and its own."""

    @abstractmethod
    def samples(self, decisions: Decisions) -> int:
        """How many samples a rollout holds."""

    @abstractmethod
    def minibatch_of(self, decisions: Decisions, rows: Int[Tensor, " B"]) -> Mini:
        """The samples of these indices, with their normalised advantages."""

    @abstractmethod
    def log_ratio(self, state: S, part: Mini) -> Float[Tensor, " B"]:
        """Log of new over old likelihood per row."""

    @abstractmethod
    def policy_loss(self, state: S, part: Mini) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Loss per row, and sums over rows for metrics (`approx_kl` among them)."""

    # What they share

    def update(self, state: S, rollout: Rollout, generator: torch.Generator) -> dict[str, float]:
        """Learn from one rollout; returns metrics."""
        self.set_iteration(state)
        decisions = self.prepare(state, rollout)
        metrics: dict[str, list[Tensor]] = defaultdict(list)
        total = self.samples(decisions)
        for rows in shuffled_minibatches(total, self.minibatch, self.epochs, generator, state.policy.device):
            batch = self.minibatch_of(decisions, rows)
            if not metrics:
                audit_ratio(self.log_ratio(state, batch.parts()[0]))
            if self._step(state, batch, decisions, metrics) > self.target_kl:
                break
        state.iteration += 1
        explained = explained_variance(decisions.value, decisions.returns)
        return mean_metrics(metrics) | {"explained_variance": float(explained)}

    @torch.no_grad()
    def prepare(self, state: S, rollout: Rollout) -> Decisions:
        """A rollout's decisions, flattened, with their advantages, returns and values."""
        features = rollout.extras["features"]
        next_obs = {name: value.flatten(0, 1) for name, value in rollout.next_obs.items()}
        value = state.value(features.flatten(0, 1)).view_as(rollout.reward)
        next_value = state.value(state.policy.encode(next_obs).features).view_as(rollout.reward)
        if self.timeout == "leak":
            next_value = torch.cat([value[1:], next_value[-1:]])
        ends = rollout.ends.under(self.timeout)
        reward = rollout.reward.to(value.dtype)
        if self.scale_rewards:
            reward = state.scale(reward, ends.ended)
        advantage = gae(reward, value, next_value, ends, gamma=self.gamma, gae_lambda=self.gae_lambda)
        flat = {k: v.flatten(0, 1) for k, v in rollout.extras.items()}
        returns = (advantage + value).flatten()
        return Decisions(flat, advantage=advantage.flatten(), returns=returns, value=value.flatten())

    def value_loss(self, state: S, decisions: Decisions, weight: Float[Tensor, " M"]) -> Tensor:
        """Weighted mean of the value errors; weights count how often a minibatch holds each decision."""
        total, loss = weight.sum(), weight.new_zeros(())
        for rows in micro_batches(weight.nonzero().squeeze(1)):
            value = state.critic(decisions.features[rows])
            error = value_error(value, decisions.returns[rows], decisions.value[rows], self.value_clip)
            part = (weight[rows] * error).sum() / total
            (self.value_coef * part).backward()
            loss = loss + part.detach()
        return loss

    def set_iteration(self, state: S) -> None:
        """Put what depends on the iteration in place: the learning rates."""
        for optimizer, peak, low in (
            (state.actor_optimizer, self.actor_lr, self.actor_lr_min),
            (state.critic_optimizer, self.critic_lr, self.critic_lr_min),
        ):
            for group in optimizer.param_groups:
                group["lr"] = peak if low is None else low + (peak - low) * self._warm_cosine(state.iteration)

    def _warm_cosine(self, iteration: int) -> float:
        i = iteration % self.lr_cycle
        if i < self.lr_warmup:
            return i / self.lr_warmup
        return (1 + math.cos(math.pi * (i - self.lr_warmup) / (self.lr_cycle - self.lr_warmup))) / 2

    def _step(self, state: S, batch: Mini, decisions: Decisions, metrics: dict[str, list[Tensor]]) -> float:
        """One gradient step of actor and critic; returns the KL divergence from the rollout's policy."""
        state.zero_grad()
        sums = defaultdict(list)
        for part in batch.parts():
            loss, statistics = self.policy_loss(state, part)
            (loss.sum() / batch.size).backward()
            for name, value in {"policy_gradient_loss": loss.detach().sum(), **statistics}.items():
                sums[name].append(value)
        # The critic sees each decision once, weighted by its multiplicity: the same gradient for less work.
        weight = batch.multiplicity(len(decisions.returns)).to(decisions.returns.dtype)
        metrics["value_loss"].append(self.value_loss(state, decisions, weight))
        for name, values in sums.items():
            metrics[name].append(torch.stack(values).sum() / batch.size)
        if self.max_grad_norm is not None:
            state.clip_gradients(self.max_grad_norm)
        if state.iteration >= self.critic_warmup:
            state.actor_optimizer.step()
        state.critic_optimizer.step()
        return float(metrics["approx_kl"][-1])


@dataclass(frozen=True)
class Decisions:
    """A rollout's M decisions, flat."""

    extras: dict[str, Tensor]
    """name -> (M, ...): what `act` returned beside the action"""
    advantage: Float[Tensor, " M"]
    returns: Float[Tensor, " M"]
    value: Float[Tensor, " M"]

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
