"""Behaviour cloning: regress the path's target on demonstrations. Chi et al. 2023, https://arxiv.org/abs/2303.04137.

Defaults are those of DPPO's Gym pre-training; its schedule steps per epoch, this one per gradient step.
Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import at_least
from ..policies.denoiser import dropping
from ..policies.policy import ACTION, Policy
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

    def __post_init__(self) -> None:
        at_least(1, self, "grad_steps", "batch", "ema_every")

    def init(self, policy: Policy) -> BCState:
        """Optimiser and average for a policy with a fitted normaliser."""
        policy.normalizer.require_fitted()
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
        """One gradient step on physical observations and actions; returns the loss without waiting for it."""
        with dropping(state.policy.network, generator):
            return self.apply(state, denoising_loss(state.policy, obs, action, generator, augment=True).mean())

    def apply(self, state: BCState, loss: Float[Tensor, ""]) -> Tensor:
        """One optimiser step down a loss, and the average's."""
        for group in state.optimizer.param_groups:
            group["lr"] = self.learning_rate(state.step)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        state.step += 1
        if state.step % self.ema_every == 0:
            updates = state.step // self.ema_every
            decay = min(self.ema_decay, (1 + updates) / (10 + updates))
            update_average(state.average, state.policy.network, decay)
        return loss.detach()


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
    policy: Policy,
    obs: dict[str, Tensor],
    action: Float[Tensor, "B H A"],
    generator: torch.Generator,
    *,
    augment: bool = False,
) -> Float[Tensor, " B"]:
    """The policy's own objective for each sample of physical data; with `augment` its pictures are changed."""
    data = policy.normalizer.normalize(ACTION, action)
    draws = policy.draw_augmentation(len(data), generator) if augment else None
    return policy.config.objective.loss(policy, policy.encode(obs, draws), data, generator)
