"""DPPO: policy gradients through the denoising chain. Ren et al. 2024, https://arxiv.org/abs/2409.00588.

Every denoising step is a step of an inner decision process whose reward comes with the action. Only the last
`finetune_steps` of the chain are trained; a frozen copy of the base makes the earlier ones.
Shapes: D decisions, N slots, M = D * N, S trained denoising steps (i = 0 the noisiest), B pairs (decision, step),
H horizon, n executed actions, A action dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..policies.policy import ACTION, Policy
from ..policies.sampler import Chain, Stochastic
from ..shapes import Float, Int
from .decisions import Decisions, normalized
from .onpolicy import OnPolicy
from .ppo import clipped_surrogate, micro_batches, ratio_statistics, shuffled_minibatches
from .returns import RewardScale
from .state import ActorCriticState
from .views import kept


@dataclass(frozen=True)
class DPPO(OnPolicy[ActorCriticState, "Pairs"]):
    """The hyperparameters are the fields; defaults are the official ones for Gym locomotion.

    A sample is a pair (decision, denoising step); `clip` is the range at the last denoising step.
    """

    finetune_steps: int | None = None
    """K': denoising steps trained, counted from the action (Sec. 4.3); None: the official 10, or all of fewer"""
    explore: Stochastic = field(default_factory=Stochastic)
    gamma_denoise: float = 0.99
    """discount per denoising step: noisier steps get less credit"""
    clip_noisiest: float | None = None
    """clip range at the noisiest trained step, rising exponentially to `clip`; None: the same everywhere"""
    clip_rate: float = 3.0
    """rate of that rise"""
    log_prob_range: tuple[float, float] = (-5.0, 2.0)
    """elements of log-probs are clamped to this"""
    advantage_quantiles: tuple[float, float] | None = None
    """advantages are clamped to these quantiles of their minibatch"""

    def init(self, base: Policy) -> ActorCriticState:
        """Split the base into a frozen prefix and a trained tail, and add a critic.

        Raises:
            UserError: unless 1 <= finetune_steps <= K.
        """
        steps = base.config.sampler.steps
        tuned = base.split(min(10, steps) if self.finetune_steps is None else self.finetune_steps)
        critic = self.critic_of(tuned)
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
        chain = policy.sample(context, noise, start=policy.first_tuned, stochastic=self.explore)
        assert chain.log_prob is not None
        executed = policy.spec.n_action_steps
        action = policy.normalizer.denormalize(ACTION, chain.action)[:, :executed]
        return action, {
            "features": context.features,
            "latents": chain.x,
            "log_prob": chain.log_prob[:, :, :executed],
            **kept(policy, obs),
        }

    def minibatches(self, decisions: Decisions, generator: torch.Generator) -> Iterator[Tensor]:
        """Any pairs; where pictures are encoded, all steps of a decision together, for they share its encoding."""
        if decisions.views is None:
            yield from super().minibatches(decisions, generator)
            return
        total, steps = decisions.log_prob.shape[:2]
        size, device = max(2, self.minibatch // steps), decisions.returns.device
        for decision in shuffled_minibatches(total, size, self.epochs, generator, device):
            yield (decision[:, None] * steps + torch.arange(steps, device=device)).flatten()

    def scored(
        self, state: ActorCriticState, decisions: Decisions, rows: Int[Tensor, " B"]
    ) -> Float[Tensor, "B S n A"]:
        """Log-probs of all trained steps of some decisions."""
        policy, latents = state.policy, decisions.latents[rows]
        chain = Chain(latents, None, latents[:, :1], policy.first_tuned)
        new = policy.score(decisions.context(policy, rows), chain, self.explore)
        return new[:, :, : decisions.log_prob.shape[2]]

    def samples(self, decisions: Decisions) -> int:
        """All pairs."""
        return decisions.log_prob.shape[0] * decisions.log_prob.shape[1]

    def minibatch_of(self, decisions: Decisions, rows: Int[Tensor, " B"]) -> Pairs:
        """The pairs with flat indices `rows`, their advantages normalised over the minibatch and discounted."""
        steps = decisions.log_prob.shape[1]
        decision, i = rows // steps, rows % steps
        advantage = self.credit(decisions.advantage[decision], i, steps)
        return Pairs(decisions, decision, i, advantage, self.clip_range(steps).to(advantage)[i])

    def credit(self, advantage: Float[Tensor, " B"], i: Int[Tensor, " B"], steps: int) -> Float[Tensor, " B"]:
        """Normalised advantage, discounted by gamma_denoise per step before the action."""
        advantage = normalized(advantage)
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

    def policy_loss(self, state: ActorCriticState, part: Pairs) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Clipped surrogate per pair, and sums for metrics."""
        log_ratio = self.log_ratio(state, part)
        return clipped_surrogate(log_ratio, part.advantage, part.clip), ratio_statistics(log_ratio, part.clip)

    def log_ratio(self, state: ActorCriticState, part: Pairs) -> Float[Tensor, " B"]:
        """The mean, not the sum, over executed actions and their elements: the clip range is meant for that."""
        d, i, policy, latents = part.decision, part.i, state.policy, part.decisions.latents
        context = part.decisions.context(policy, d)
        new = policy.log_prob(context, latents[d, i], latents[d, i + 1], policy.first_tuned + i, self.explore)
        old = part.decisions.log_prob[d, i]
        new, old = (v.clamp(*self.log_prob_range) for v in (new[:, : old.shape[1]], old))
        return (new - old).mean((1, 2))


@dataclass(frozen=True)
class Pairs:
    """B pairs of a decision and one of its denoising steps."""

    decisions: Decisions
    decision: Int[Tensor, " B"]
    i: Int[Tensor, " B"]
    advantage: Float[Tensor, " B"]
    clip: Float[Tensor, " B"]

    @property
    def size(self) -> int:
        """B."""
        return len(self.i)

    def multiplicity(self, decisions: int) -> Int[Tensor, " M"]:
        """How many denoising steps of each decision are here."""
        return torch.bincount(self.decision, minlength=decisions)

    def parts(self, decisions: int | None = None) -> list[Pairs]:
        """Micro-batches."""
        size = decisions and decisions * self.decisions.log_prob.shape[1]
        pairs = (self.decision, self.i, self.advantage, self.clip)
        columns = zip(*(micro_batches(c, size=size) for c in pairs), strict=True)
        return [Pairs(self.decisions, *column) for column in columns]
