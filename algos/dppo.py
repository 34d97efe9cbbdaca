"""DPPO: policy gradients through the denoising chain. Ren et al. 2024, https://arxiv.org/abs/2409.00588.

Every denoising step is a step of an inner decision process whose reward comes with the action. Only the last
`finetune_steps` of the chain are trained; a frozen copy of the base makes the earlier ones.
Shapes: D decisions, N slots, M = D * N, S trained denoising steps (i = 0 the noisiest), B pairs (decision, step),
H horizon, n executed actions, A action dim.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import at_least
from ..policies.critic import CriticMLP
from ..policies.policy import ACTION, Policy
from ..policies.sampler import Stochastic
from ..shapes import Float, Int
from .audit import audit_ratio
from .ppo import (
    clipped_surrogate,
    explained_variance,
    mean_metrics,
    micro_batches,
    ratio_statistics,
    shuffled_minibatches,
    value_error,
)
from .returns import RewardScale, Timeout, gae
from .rollout import Rollout
from .state import ActorCriticState


@dataclass(frozen=True)
class DPPO:
    """The hyperparameters are the fields; defaults are the official ones for Gym locomotion."""

    finetune_steps: int = 10
    """K': denoising steps trained, counted from the action (Sec. 4.3)"""
    explore: Stochastic = field(default_factory=Stochastic)
    gamma: float = 0.99
    """discount per decision, not per environment step"""
    gamma_denoise: float = 0.99
    """discount per denoising step: noisier steps get less credit"""
    gae_lambda: float = 0.95
    clip: float = 0.01
    """clip range of the ratio at the last denoising step"""
    clip_noisiest: float | None = None
    """clip range at the noisiest trained step, rising exponentially to `clip`; None: the same everywhere"""
    clip_rate: float = 3.0
    """rate of that rise"""
    log_prob_range: tuple[float, float] = (-5.0, 2.0)
    """elements of log-probs are clamped to this"""
    advantage_quantiles: tuple[float, float] | None = None
    """advantages are clamped to these quantiles of their minibatch"""
    epochs: int = 5
    minibatch: int = 50_000
    """pairs (decision, denoising step) per gradient step"""
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    critic: CriticMLP = field(default_factory=CriticMLP)
    critic_warmup: int = 0
    """iterations in which only the critic learns"""
    value_coef: float = 0.5
    value_clip: float | None = None
    target_kl: float = 1.0
    """an iteration's updates stop beyond this"""
    scale_rewards: bool = True
    """divide rewards by the running standard deviation of returns"""
    timeout: Timeout = "bootstrap"
    """how time limits enter returns"""

    def __post_init__(self) -> None:
        at_least(1, self, "epochs")
        at_least(2, self, "minibatch")  # advantages are normalised over it

    def init(self, policy: Policy) -> ActorCriticState:
        """Split the base into a frozen prefix and a trained tail, and add a critic.

        Raises:
            UserError: unless 1 <= finetune_steps <= K.
        """
        tuned = policy.split(self.finetune_steps)
        critic = self.critic.build(tuned.feature_dim).to(tuned.device, tuned.dtype)
        # The scale discounts with its own 0.99 whatever `gamma` is, as the official code does.
        return ActorCriticState.create(tuned, critic, self.actor_lr, self.critic_lr, RewardScale())

    @torch.no_grad()
    def act(
        self, state: ActorCriticState, obs: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N n A"], dict[str, Tensor]]:
        """Exploring actions in physical units, and what `update` needs of them."""
        policy = state.policy
        context = policy.encode(obs)
        noise = policy.noise(len(context.features), generator, steps=True)
        chain = policy.sample(context, noise, start=self._start(policy), stochastic=self.explore)
        assert chain.log_prob is not None
        executed = policy.spec.n_action_steps
        action = policy.normalizer.denormalize(ACTION, chain.action)[:, :executed]
        return action, {
            "features": context.features,
            "latents": chain.x,
            "log_prob": chain.log_prob[:, :, :executed],
        }

    def update(self, state: ActorCriticState, rollout: Rollout, generator: torch.Generator) -> dict[str, float]:
        """Learn from one rollout; returns metrics."""
        decisions = self.prepare(state, rollout)
        metrics: dict[str, list[Tensor]] = defaultdict(list)
        pairs = decisions.log_prob.shape[0] * decisions.log_prob.shape[1]
        for rows in shuffled_minibatches(pairs, self.minibatch, self.epochs, generator, state.policy.device):
            batch = self.pairs(decisions, rows)
            if not metrics:
                audit_ratio(self._log_ratio(state.policy, batch.parts()[0]))
            if self._step(state, batch, metrics) > self.target_kl:
                break
        state.iteration += 1
        explained = explained_variance(decisions.value, decisions.returns)
        return mean_metrics(metrics) | {"explained_variance": float(explained)}

    # Returns

    @torch.no_grad()
    def prepare(self, state: ActorCriticState, rollout: Rollout) -> Decisions:
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
        return Decisions(**flat, advantage=advantage.flatten(), returns=returns, value=value.flatten())

    # Losses

    def pairs(self, decisions: Decisions, rows: Int[Tensor, " B"]) -> Pairs:
        """The pairs with flat indices `rows`, their advantages normalised over the minibatch and discounted."""
        steps = decisions.log_prob.shape[1]
        decision, i = rows // steps, rows % steps
        advantage = self.credit(decisions.advantage[decision], i, steps)
        return Pairs(decisions, decision, i, advantage, self.clip_range(steps).to(advantage)[i])

    def credit(self, advantage: Float[Tensor, " B"], i: Int[Tensor, " B"], steps: int) -> Float[Tensor, " B"]:
        """Normalised advantage, discounted by gamma_denoise per step before the action."""
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        if self.advantage_quantiles is not None:
            low, high = (torch.quantile(advantage, q) for q in self.advantage_quantiles)
            advantage = advantage.clamp(low, high)
        discount = self.gamma_denoise ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        return advantage * discount.to(advantage)[i]

    def clip_range(self, steps: int) -> Float[Tensor, " S"]:
        """Clip range per denoising step, the noisiest first."""
        low = self.clip if self.clip_noisiest is None else self.clip_noisiest
        if steps == 1:
            return torch.full((1,), self.clip, dtype=torch.float64)
        rise = torch.expm1(self.clip_rate * torch.linspace(0, 1, steps, dtype=torch.float64))
        return low + (self.clip - low) * rise / rise[-1]

    def policy_loss(self, policy: Policy, batch: Pairs) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Clipped surrogate per pair, and sums for metrics."""
        log_ratio = self._log_ratio(policy, batch)
        return clipped_surrogate(log_ratio, batch.advantage, batch.clip), ratio_statistics(log_ratio, batch.clip)

    def _log_ratio(self, policy: Policy, batch: Pairs) -> Float[Tensor, " B"]:
        d, i, latents = batch.decision, batch.i, batch.decisions.latents
        context = policy.context(batch.decisions.features[d])
        new = policy.log_prob(context, latents[d, i], latents[d, i + 1], self._start(policy) + i, self.explore)
        old = batch.decisions.log_prob[d, i]
        # The mean, not the sum, over executed actions and their elements: the clip range is meant for that.
        new, old = (v.clamp(*self.log_prob_range) for v in (new[:, : old.shape[1]], old))
        return (new - old).mean((1, 2))

    def value_loss(self, state: ActorCriticState, decisions: Decisions, weight: Float[Tensor, " M"]) -> Tensor:
        """Weighted mean of the value errors; weights count how often a minibatch holds each decision."""
        total, loss = weight.sum(), weight.new_zeros(())
        for rows in micro_batches(weight.nonzero().squeeze(1)):
            value = state.critic(decisions.features[rows])
            error = value_error(value, decisions.returns[rows], decisions.value[rows], self.value_clip)
            part = (weight[rows] * error).sum() / total
            (self.value_coef * part).backward()
            loss = loss + part.detach()
        return loss

    def _step(self, state: ActorCriticState, batch: Pairs, metrics: dict[str, list[Tensor]]) -> float:
        """One gradient step of actor and critic; returns the KL divergence from the rollout's policy."""
        state.zero_grad()
        size, sums = len(batch.i), defaultdict(list)
        for part in batch.parts():
            loss, statistics = self.policy_loss(state.policy, part)
            (loss.sum() / size).backward()
            for name, value in {"policy_gradient_loss": loss.detach().sum(), **statistics}.items():
                sums[name].append(value)
        # The critic sees each decision once, weighted by its multiplicity: the same gradient for less work.
        weight = torch.bincount(batch.decision, minlength=len(batch.decisions.returns)).to(state.policy.dtype)
        metrics["value_loss"].append(self.value_loss(state, batch.decisions, weight))
        for name, values in sums.items():
            metrics[name].append(torch.stack(values).sum() / size)
        if state.iteration >= self.critic_warmup:
            state.actor_optimizer.step()
        state.critic_optimizer.step()
        return float(metrics["approx_kl"][-1])

    def _start(self, policy: Policy) -> int:
        return policy.config.sampler.steps - self.finetune_steps


@dataclass(frozen=True)
class Decisions:
    """A rollout's M decisions, flat."""

    features: Float[Tensor, "M F"]
    latents: Float[Tensor, "M S1 H A"]
    log_prob: Float[Tensor, "M S n A"]
    advantage: Float[Tensor, " M"]
    returns: Float[Tensor, " M"]
    value: Float[Tensor, " M"]


@dataclass(frozen=True)
class Pairs:
    """B pairs of a decision and one of its denoising steps."""

    decisions: Decisions
    decision: Int[Tensor, " B"]
    i: Int[Tensor, " B"]
    advantage: Float[Tensor, " B"]
    clip: Float[Tensor, " B"]

    def parts(self) -> list[Pairs]:
        """Micro-batches."""
        columns = zip(*(micro_batches(c) for c in (self.decision, self.i, self.advantage, self.clip)), strict=True)
        return [Pairs(self.decisions, *column) for column in columns]
