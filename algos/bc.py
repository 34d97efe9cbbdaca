"""Behaviour cloning: regress the path's target on demonstrations. Chi et al. 2023, https://arxiv.org/abs/2303.04137.

Defaults are those of DPPO's Gym pre-training; its schedule steps per epoch, this one per gradient step.
Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import at_least, positive_or_none
from ..policies.denoiser import dropping
from ..policies.policy import ACTION, Policy
from ..policies.precision import Precision, computing_in, require
from ..shapes import Float
from .ema import average_of, update_average


@dataclass(frozen=True)
class BC:
    """Hyperparameters of pre-training."""

    grad_steps: int = 100_000
    batch: int = 128
    lr: float = 1e-3
    """learning rate after warm-up"""
    lr_final: float = 1e-4
    """learning rate at the end of the cosine"""
    warmup: float = 0.01
    """share of the gradient steps in which the learning rate rises linearly"""
    weight_decay: float = 1e-6
    pad: bool = True
    """learn windows that cross the end of an episode too, repeating its last action"""
    ema_decay: float = 0.995
    """per update of the average, reached from below as (1 + n) / (10 + n) over the first n updates"""
    ema_every: int = 10
    """gradient steps between updates of the average"""
    draws: int = 1
    """times and noises per observation, which is encoded once for all of them: with pictures they cost little"""
    micro_batch: int | None = None
    """observations per backward pass, whose gradients add up to the batch's: less memory. None: all at once"""
    precision: Precision = "float32"
    """of the forward passes; bfloat16 needs a processor that has it. Weights and losses stay float32"""

    def __post_init__(self) -> None:
        at_least(1, self, "grad_steps", "batch", "ema_every", "draws")
        positive_or_none(self, "micro_batch")

    def init(self, policy: Policy) -> BCState:
        """Optimiser and average for a policy with a fitted normaliser.

        Raises:
            UserError: for one without, or a precision that its device lacks.
        """
        policy.normalizer.require_fitted()
        require(self.precision, policy.device)
        optimizer = torch.optim.AdamW(
            policy.network.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True
        )
        return BCState(policy, average_of(policy.network), optimizer)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to `lr_final`."""
        warm = max(1, round(self.warmup * self.grad_steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        progress = (step - warm) / max(1, self.grad_steps - warm)
        return self.lr_final + (self.lr - self.lr_final) * (1 + math.cos(math.pi * progress)) / 2

    def update(
        self,
        state: BCState,
        obs: dict[str, Tensor],
        action: Float[Tensor, "B H A"],
        generator: torch.Generator,
    ) -> Tensor:
        """One gradient step on physical observations and actions; returns the loss without waiting for it.

        All that is random is drawn for the whole batch first, so `micro_batch` changes no more than rounding; only
        a network that `drops` draws what it drops part by part.
        """
        policy, objective = state.policy, state.policy.config.objective
        with dropping(policy.network, generator):
            obs = obs | policy.action_prefix.draw(action, generator)
            augment = policy.draw_augmentation(len(action), generator)
            data = policy.normalizer.normalize(ACTION, action).repeat_interleave(self.draws, 0)
            points = objective.draw(policy, data, generator)

            def loss(rows: slice) -> Tensor:
                part, drawn = {name: value[rows] for name, value in obs.items()}, self.drawn(rows)
                context = policy.encode(part, augment and augment.rows(rows)).repeat(self.draws)
                return objective.loss_at(policy, context, data[drawn], points.rows(drawn)).mean()

            return self.apply(state, loss, len(action))

    def drawn(self, rows: slice) -> slice:
        """Where the draws of these observations stand."""
        return slice(rows.start * self.draws, rows.stop * self.draws)

    def apply(self, state: BCState, loss: Callable[[slice], Float[Tensor, ""]], batch: int) -> Tensor:
        """One optimiser step, and the average's, down the mean loss of `batch` rows, which `loss` gives for a part."""
        for group in state.optimizer.param_groups:
            group["lr"] = self.learning_rate(state.step)
        state.optimizer.zero_grad()
        total = self._backward(loss, batch, state.policy.device)
        state.optimizer.step()
        state.step += 1
        if state.step % self.ema_every == 0:
            updates = state.step // self.ema_every
            decay = min(self.ema_decay, (1 + updates) / (10 + updates))
            update_average(state.average, state.policy.network, decay)
        return total

    def _backward(self, loss: Callable[[slice], Tensor], batch: int, device: torch.device) -> Tensor:
        total, size = torch.zeros((), device=device), self.micro_batch or batch
        for start in range(0, batch, size):
            rows = slice(start, min(start + size, batch))
            with computing_in(self.precision, device):
                part = loss(rows) * ((rows.stop - start) / batch)
            part.backward()
            total = total + part.detach()
        return total


@dataclass
class BCState:
    """The live policy, its average (what is saved as the result) and the optimiser."""

    policy: Policy
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def averaged(self) -> Policy:
        """The policy with the averaged weights: what training is for."""
        policy = copy.copy(self.policy)
        policy._modules = {**policy._modules, "network": self.average}
        return policy


def denoising_loss(
    policy: Policy, obs: dict[str, Tensor], action: Float[Tensor, "B H A"], generator: torch.Generator
) -> Float[Tensor, " B"]:
    """The policy's own objective for each sample of physical data, its pictures as they are."""
    data = policy.normalizer.normalize(ACTION, action)
    return policy.config.objective.loss(policy, policy.encode(obs), data, generator)
