"""Advantages and reward scales for rollouts whose episodes end anywhere.

Shapes: D decisions, N environment slots. A decision's reward is the sum over its chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..shapes import Bool, Float

Timeout = Literal["bootstrap", "terminal", "leak"]
"""What a time limit means for returns.

bootstrap: the episode would have gone on, so its value continues from the true final observation (correct).
terminal: nothing follows, as if the task had ended (the official DPPO on Gym).
leak: the limit is not seen at all; returns run on into the next episode (the official DPPO on robomimic).
"""


@dataclass(frozen=True)
class Ends:
    """How each decision's episode went on."""

    terminated: Bool[Tensor, "D N"]
    truncated: Bool[Tensor, "D N"]

    @property
    def ended(self) -> Bool[Tensor, "D N"]:
        """The next decision belongs to another episode."""
        return self.terminated | self.truncated

    def under(self, timeout: Timeout) -> Ends:
        """The flags as the given reading of time limits sees them."""
        if timeout == "terminal":
            return Ends(self.ended, torch.zeros_like(self.truncated))
        if timeout == "leak":
            return Ends(self.terminated, torch.zeros_like(self.truncated))
        return self


def gae(
    reward: Float[Tensor, "D N"],
    value: Float[Tensor, "D N"],
    next_value: Float[Tensor, "D N"],
    ends: Ends,
    *,
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "D N"]:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16); nothing crosses the end of an episode.

    `next_value` is the value of what truly followed: the final observation of a truncated episode, not the first
    of the next one.
    """
    # TD error: r_t + gamma V(s_{t+1}) - V(s_t), without a future where the task ended.
    delta = reward + gamma * next_value * ~ends.terminated - value
    carry = gamma * gae_lambda * (~ends.ended).to(delta.dtype)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for d in range(len(delta) - 1, -1, -1):
        running = delta[d] + carry[d] * running
        advantage[d] = running
    return advantage


@dataclass
class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return so far (as DPPO and Baselines do).

    The statistics take in a whole rollout before it is scaled. Scaled rewards are clipped to +-`clip`.
    """

    gamma: float = 0.99
    clip: float = 10.0
    mean: float = 0.0
    var: float = 1.0
    count: float = 1e-4
    running: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(N,): the return so far in each slot's episode"""
    restart: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """(N,): the next decision starts an episode"""

    def __call__(self, reward: Float[Tensor, "D N"], ended: Bool[Tensor, "D N"]) -> Float[Tensor, "D N"]:
        """Take in a rollout and scale it."""
        if len(self.running) == 0:
            self.running = torch.zeros_like(reward[0], dtype=torch.float64)
            self.restart = torch.ones_like(ended[0])
        first = torch.cat([self.restart[None], ended[:-1]])
        returns = torch.empty_like(reward, dtype=torch.float64)
        for d in range(len(reward)):
            self.running = reward[d] + self.gamma * self.running * ~first[d]
            returns[d] = self.running
        self.restart = ended[-1]
        self._take_in(returns)
        return (reward / (self.var + 1e-8) ** 0.5).clamp(-self.clip, self.clip)

    def _take_in(self, x: Tensor) -> None:
        # Chan et al.'s merge of two samples' moments, divided by n - 1 as the official code does.
        n, mean, var = x.numel(), x.mean().item(), x.var(correction=0).item()
        total, delta = self.count + n, mean - self.mean
        m2 = self.var * self.count + var * n + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.var, self.count = m2 / (total - 1), total
