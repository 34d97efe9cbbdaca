"""ReinFlow: policy gradients through a flow whose steps carry learned noise. Zhang et al. 2025, arXiv:2505.22094.

A network beside the policy gives the standard deviation of every element at every step; the steps' means stay those
of the flow (Euler's), so without the noise the policy is the flow again. The likelihood is that of the whole chain.
Shapes: D decisions, N slots, M = D * N, B rows of a minibatch, K steps, H horizon, A action dim, E time embedding,
C condition.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, at_least
from ..policies.activation import Activation
from ..policies.network import trunk
from ..policies.policy import ACTION, Context, Policy
from ..policies.sampler import LOG_2PI, Chain
from ..shapes import Float, Int
from .decisions import Decisions, normalized
from .onpolicy import OnPolicy
from .ppo import clipped_surrogate, micro_batches, ratio_statistics
from .returns import RewardScale
from .state import ActorCriticState
from .views import kept


@dataclass(frozen=True)
class NoiseMLP:
    """The exploration noise: an MLP on [time embedding, condition], bounded; `build` makes it (Sec. 4 of the paper)."""

    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    min_std: float = 0.1
    max_std: float = 0.24
    """in units of the normalised action"""
    sees_time: bool = True
    """off: the observation alone (the official choice for images)"""
    hold: int = 350
    """iterations until the upper bound starts to fall"""
    decay: int = 650
    """iterations over which it falls, along a cosine; 0: it stays"""
    final: float = 0.7
    """where it ends, as the share of [min_std, max_std] that is left"""

    def __post_init__(self) -> None:
        if not 0 < self.min_std <= self.max_std:
            raise UserError(
                f"noise bounds must be positive and in order, got min_std {self.min_std}, max_std {self.max_std}"
            )

    def upper_bound(self, iteration: int) -> float:
        """The largest standard deviation at an iteration."""
        if self.decay == 0 or iteration < self.hold:
            return self.max_std
        fall = (1 + math.cos(math.pi * min(1.0, (iteration - self.hold) / self.decay))) / 2
        return self.min_std + (self.max_std - self.min_std) * (self.final + (1 - self.final) * fall)

    def build(self, policy: Policy, learned: int) -> NoiseNetwork:
        """The network for a policy, whose last `learned` steps get learned noise."""
        return NoiseNetwork(self, policy, learned).to(policy.device, policy.dtype)


class NoiseNetwork(nn.Module):
    """sigma(t, obs) in [min_std, upper]; a log-variance between its bounds by tanh."""

    def __init__(self, config: NoiseMLP, policy: Policy, learned: int) -> None:
        super().__init__()
        self.config, self.upper = config, config.max_std
        self.chunk = policy.noise_shape[1:]
        self.fixed = policy.config.sampler.steps - learned
        known = policy.network.condition_dim + config.sees_time * policy.network.time_dim
        self.trunk = trunk((known, *config.hidden, math.prod(self.chunk)), config.activation, residual=False)

    def forward(self, times: Float[Tensor, "K E"], condition: Float[Tensor, "B C"]) -> Float[Tensor, "B K H A"]:
        """Standard deviations at all steps. The time embedding gets no gradient from here, the condition does."""
        known = condition[:, None].expand(-1, len(times), -1)
        if self.config.sees_time:
            known = torch.cat([times.detach().expand(len(condition), -1, -1), known], -1)
        low, high = (2 * math.log(v) for v in (self.config.min_std, self.upper))
        log_var = low + (high - low) * (self.trunk(known).tanh() + 1) / 2
        std = (0.5 * log_var).exp().unflatten(-1, self.chunk)
        if self.fixed:
            std = torch.cat([torch.full_like(std[:, : self.fixed], self.config.min_std), std[:, self.fixed :]], 1)
        return std


@dataclass
class ReinFlowState(ActorCriticState):
    """Beside policy and critic: the noise, and the policy that learning started from."""

    noise: NoiseNetwork = field(kw_only=True)
    base: Policy = field(kw_only=True)

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        return super().modules() | {"noise": self.noise, "base": self.base}

    def std(self, context: Context) -> Float[Tensor, "B K H A"]:
        """Of every element at every step."""
        return self.noise(self.policy.embed_times(), context.condition)


@dataclass(frozen=True)
class ReinFlow(OnPolicy[ReinFlowState, "Chains"]):
    """The hyperparameters are the fields; defaults are the official ones for Hopper. A sample is a decision."""

    actor_lr: float = 4.5e-5
    actor_lr_min: float | None = 2e-5
    critic_lr: float = 6.5e-4
    critic_lr_min: float | None = 3e-4
    steps: int | None = None
    """K of the tuned policy; None: as many as its base's sampler"""
    finetune_steps: int | None = None
    """steps, counted from the action, whose noise is learned; earlier ones keep min_std. None: all"""
    noise: NoiseMLP = field(default_factory=NoiseMLP)
    repeats: int = 10
    """copies of the rollout per epoch: with the official 10 as many gradient steps per iteration as DPPO makes"""
    log_prob_range: tuple[float, float] = (-1.0, 1.0)
    """log-probs per step and element are clamped to this"""
    entropy_coef: float = 0.03
    bc_coef: float = 0.0
    """weight of the squared distance to the base's action for zero noise (the code's 'W2' regulariser)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "repeats")

    def init(self, base: Policy) -> ReinFlowState:
        """A trainable copy of the base without noise of its own, a noise network and a critic.

        Raises:
            UserError: for more steps than the path has, or a base that was split already.
        """
        steps = self.steps or base.config.sampler.steps
        learned = self.finetune_steps or steps
        if not 1 <= learned <= steps:
            raise UserError(f"finetune_steps {learned} must lie between 1 and the sampler's steps {steps}")
        flow = base.with_sampler(base.config.sampler.without_noise(steps))
        tuned = flow.split(steps)
        critic = self.critic_of(tuned)
        noise, frozen = self.noise.build(tuned, learned), copy.deepcopy(flow).requires_grad_(False)
        learning = (self.actor_lr, self.critic_lr, RewardScale())
        return ReinFlowState.create(tuned, critic, *learning, beside=[noise], noise=noise, base=frozen)

    @torch.no_grad()
    def act(
        self, state: ReinFlowState, obs: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N n A"], dict[str, Tensor]]:
        """Exploring actions in physical units, and what `update` needs of them."""
        self.set_iteration(state)  # the bound of the noise
        policy, context = state.policy, state.policy.encode(obs)
        noise = policy.noise(len(context.features), generator, steps=True)
        chain = policy.sample(context, noise, stochastic=state.std(context))
        assert chain.log_prob is not None
        action = policy.normalizer.denormalize(ACTION, chain.action)[:, : policy.spec.n_action_steps]
        log_prob = whole_chain(chain.x[:, 0], chain.log_prob)
        kept_here = {"features": context.features, "latents": chain.x, "log_prob": log_prob}
        return action, kept_here | kept(policy, obs)

    def set_iteration(self, state: ReinFlowState) -> None:
        """Learning rates, and the noise's upper bound."""
        super().set_iteration(state)
        state.noise.upper = self.noise.upper_bound(state.iteration)

    def samples(self, decisions: Decisions) -> int:
        """All decisions, `repeats` times."""
        return len(decisions.returns) * self.repeats

    def minibatch_of(self, decisions: Decisions, rows: Int[Tensor, " B"]) -> Chains:
        """The decisions that rows modulo M mean, each once, with the number of times that it occurs."""
        total = len(decisions.returns)
        count = torch.bincount(rows % total, minlength=total)
        decision = count.nonzero().squeeze(1)
        weight = count[decision].to(decisions.advantage.dtype)
        return Chains(decisions, decision, weight, normalized(decisions.advantage[decision], weight))

    def log_ratio(self, state: ReinFlowState, part: Chains) -> Float[Tensor, " B"]:
        """Of the whole chain's likelihood per step and element."""
        context = part.decisions.context(state.policy, part.decision)
        return self._log_ratio(state, part, context, state.std(context))

    def policy_loss(self, state: ReinFlowState, part: Chains) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Clipped surrogate, entropy bonus and distance to the base per row; rows count by their weight."""
        context = part.decisions.context(state.policy, part.decision)
        std = state.std(context)
        log_ratio = self._log_ratio(state, part, context, std)
        entropy = chain_entropy(std)
        loss = clipped_surrogate(log_ratio, part.advantage, self.clip) - self.entropy_coef * entropy
        if self.bc_coef > 0:
            theirs = part.decisions.context(state.base, part.decision)
            loss = loss + self.bc_coef * self.distance(state, context, theirs)
        sums = ratio_statistics(log_ratio, self.clip, part.weight)
        sums |= {"entropy": (part.weight * entropy.detach()).sum()}
        return part.weight * loss, sums | {"noise_std": (part.weight * std.detach().mean((1, 2, 3))).sum()}

    def distance(self, state: ReinFlowState, context: Context, theirs: Context) -> Float[Tensor, " B"]:
        """Mean squared distance between the actions of policy and base, both from zero noise, without noise."""
        zero = context.features.new_zeros(len(context.features), 1, *state.noise.chunk)
        with torch.no_grad():
            kept_to = state.base.sample(theirs, zero).action
        return (state.policy.sample(context, zero).action - kept_to).square().mean((1, 2))

    def scored(self, state: ReinFlowState, decisions: Decisions, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Log-probs of the whole chains of some decisions."""
        context = decisions.context(state.policy, rows)
        return self._score(state, decisions, rows, context, state.std(context))

    def _score(
        self,
        state: ReinFlowState,
        decisions: Decisions,
        rows: Int[Tensor, " B"],
        context: Context,
        std: Float[Tensor, "B K H A"],
    ) -> Float[Tensor, " B"]:
        latents = decisions.latents[rows]
        return whole_chain(latents[:, 0], state.policy.score(context, Chain(latents, None, latents[:, :1], 0), std))

    def _log_ratio(
        self, state: ReinFlowState, part: Chains, context: Context, std: Float[Tensor, "B K H A"]
    ) -> Float[Tensor, " B"]:
        new = self._score(state, part.decisions, part.decision, context, std)
        new, old = (v.clamp(*self.log_prob_range) for v in (new, part.decisions.log_prob[part.decision]))
        return new - old


@dataclass(frozen=True)
class Chains:
    """B different decisions of a minibatch."""

    decisions: Decisions
    decision: Int[Tensor, " B"]
    weight: Float[Tensor, " B"]
    """how often the minibatch holds each"""
    advantage: Float[Tensor, " B"]

    @property
    def size(self) -> int:
        """Samples, repeats counted."""
        return int(self.weight.sum())

    def multiplicity(self, decisions: int) -> Int[Tensor, " M"]:
        """How often each decision of the rollout is here."""
        count = torch.zeros(decisions, dtype=torch.long, device=self.decision.device)
        return count.index_copy(0, self.decision, self.weight.long())

    def parts(self, decisions: int | None = None) -> list[Chains]:
        """Micro-batches; a decision is K rows of the network."""
        steps, rows = self.decisions.latents.shape[1] - 1, (self.decision, self.weight, self.advantage)
        columns: Any = zip(*(micro_batches(c, steps, decisions) for c in rows), strict=True)
        return [Chains(self.decisions, *column) for column in columns]


def whole_chain(first: Float[Tensor, "B H A"], steps: Float[Tensor, "B K H A"]) -> Float[Tensor, " B"]:
    """Log-prob of a chain, its standard normal start included, per element and per step (K + 1 of them)."""
    start = -0.5 * (first.square() + LOG_2PI)
    return (start.sum((1, 2)) + steps.sum((1, 2, 3))) / ((steps.shape[1] + 1) * first[0].numel())


def chain_entropy(std: Float[Tensor, "B K H A"]) -> Float[Tensor, " B"]:
    """Entropy of a chain, its standard normal start included, per element and per step (the entropy rate)."""
    steps, elements = std.shape[1], std[0, 0].numel()
    return std.log().sum((1, 2, 3)) / ((steps + 1) * elements) + 0.5 * (1 + LOG_2PI)
