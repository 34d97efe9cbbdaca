"""What PPO-like methods share: returns, minibatches, the critic's loss, one gradient step. Schulman et al. 2017.

A method adds how it acts, what one of its samples is (a decision, or a decision and a denoising step) and the loss of
a sample. Shapes: D decisions, N slots, M = D * N, B rows of a minibatch.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError, at_least, fractions, positive_or_none
from ..policies.critic import Critic, CriticMLP
from ..policies.policy import Policy
from ..shapes import Float, Int
from .audit import audit_ratio
from .decisions import Decisions
from .offpolicy import VectorEnv
from .ppo import explained_variance, mean_metrics, micro_batches, shuffled_minibatches, value_error
from .returns import Timeout, gae
from .rollout import Rollout
from .state import ActorCriticState
from .views import AT_ONCE, Views, views_of


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

    def parts(self, decisions: int | None) -> Sequence[Any]:
        """Micro-batches of so many decisions; None: of as many as suit the device."""
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
    micro_batch: int | None = None
    """decisions per backward pass, whose gradients add up to the step's; None: what suits the device, and 128 where
    pictures are encoded"""
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
        positive_or_none(self, "max_grad_norm", "value_clip", "micro_batch")
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

    def scored(self, state: S, decisions: Decisions, rows: Int[Tensor, " B"]) -> Tensor:
        """Log-probs of some decisions as `act` records them; for methods whose encoder learns (see `views.py`)."""
        raise NotImplementedError

    # What they share

    def critic_of(self, policy: Policy) -> Critic:
        """The critic of what a policy sees; its encoder begins as a copy of the policy's."""
        critic = self.critic.build(policy.feature_dim)
        critic.encoder = copy.deepcopy(policy.network.encoder)
        return critic.to(policy.device, policy.dtype)

    def update(self, state: S, rollout: Rollout, generator: torch.Generator) -> dict[str, float]:
        """Learn from one rollout; returns metrics."""
        self.set_iteration(state)
        decisions = self.prepare(state, rollout, generator)
        metrics: dict[str, list[Tensor]] = defaultdict(list)
        for rows in self.minibatches(decisions, generator):
            batch = self.minibatch_of(decisions, rows)
            if not metrics:
                audit_ratio(self.log_ratio(state, batch.parts(self._at_once(decisions))[0]))
            if self._step(state, batch, decisions, metrics) > self.target_kl:
                break
        state.iteration += 1
        explained = explained_variance(decisions.value, decisions.returns)
        return mean_metrics(metrics) | {"explained_variance": float(explained)}

    @torch.no_grad()
    def prepare(self, state: S, rollout: Rollout, generator: torch.Generator) -> Decisions:
        """A rollout's decisions, flattened, with their advantages, returns and values."""
        flat = {k: v.flatten(0, 1) for k, v in rollout.extras.items()}
        views = views_of(flat)
        views = views and views.changed(state.policy, generator)
        value = state.value(views or flat["features"]).view_as(rollout.reward)
        next_value = self._next_values(state, rollout, value, seen=views is not None)
        if self.timeout == "leak":
            next_value = torch.cat([value[1:], next_value[-1:]])
        ends = rollout.ends.under(self.timeout)
        reward = rollout.reward.to(value.dtype)
        if self.scale_rewards:
            reward = state.scale(reward, ends.ended)
        advantage = gae(reward, value, next_value, ends, gamma=self.gamma, gae_lambda=self.gae_lambda)
        returns = (advantage + value).flatten()
        decisions = Decisions(flat, advantage.flatten(), returns, value.flatten(), views)
        return self._rescored(state, decisions) if views and views.draws else decisions

    def _next_values(
        self, state: S, rollout: Rollout, value: Float[Tensor, "D N"], *, seen: bool
    ) -> Float[Tensor, "D N"]:
        """Values of what truly followed; with pictures only where that is not what the next decision saw."""
        if not seen:
            after = {name: obs.flatten(0, 1) for name, obs in rollout.next_obs.items()}
            return state.value(state.policy.encode(after).features).view_as(value)
        other = rollout.ends.truncated.clone()
        other[-1] = True
        following = torch.cat([value[1:], value[-1:]])
        following[other] = state.value(Views({name: obs[other] for name, obs in rollout.next_obs.items()}))
        return following

    def _rescored(self, state: S, decisions: Decisions) -> Decisions:
        """With the log-probs of the pictures as they will be learned from, once sampling and scoring agree."""
        assert decisions.views is not None
        rows = torch.arange(len(decisions.returns), device=decisions.returns.device)
        parts = rows.split(self._at_once(decisions) or len(rows))
        plain = self.scored(state, replace(decisions, views=decisions.views.plain()), parts[0])
        audit_ratio((plain - decisions.log_prob[parts[0]]).reshape(len(plain), -1).mean(1))
        log_prob = torch.cat([self.scored(state, decisions, part) for part in parts])
        return replace(decisions, extras={**decisions.extras, "log_prob": log_prob})

    def minibatches(self, decisions: Decisions, generator: torch.Generator) -> Iterator[Tensor]:
        """Indices of samples, one set per gradient step."""
        device = decisions.returns.device
        return shuffled_minibatches(self.samples(decisions), self.minibatch, self.epochs, generator, device)

    def _at_once(self, decisions: Decisions) -> int | None:
        """Decisions per backward pass; None: as many as suit the device."""
        return self.micro_batch or (AT_ONCE if decisions.views else None)

    def value_loss(self, state: S, decisions: Decisions, weight: Float[Tensor, " M"]) -> Tensor:
        """Weighted mean of the value errors; weights count how often a minibatch holds each decision."""
        total, loss = weight.sum(), weight.new_zeros(())
        for rows in micro_batches(weight.nonzero().squeeze(1), size=self._at_once(decisions)):
            value = decisions.values(state, rows)
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
        for part in batch.parts(self._at_once(decisions)):
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
