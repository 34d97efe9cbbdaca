"""Gaussian policies and values for PPO, initialised as ResiP's (Ankile et al. 2024, arXiv:2407.16677).

The mean depends on the observation, the standard deviation does not; nothing is squashed, so actions have no limits.
Shapes: B batch, F features, A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..shapes import Float
from .activation import Activation
from .network import trunk
from .sampler import LOG_2PI, normal_log_prob


@dataclass(frozen=True)
class NormalMLP:
    """A plain MLP to a mean, and one log standard deviation per element; `build` makes it."""

    hidden: tuple[int, ...] = (256, 256)
    activation: Activation = "silu"
    log_std: float = -1.0
    """in every element at first"""
    learn_std: bool = False
    last_gain: float = 0.0
    """of the last layer, which has no bias; 0: the mean begins at exactly 0 in every state"""

    def build(self, features: int, action: int) -> Normal:
        """The network for F = features and A = action."""
        return Normal(self, features, action)


class Normal(nn.Module):
    """Distribution over actions: N(mean(obs), std^2)."""

    def __init__(self, config: NormalMLP, features: int, action: int) -> None:
        super().__init__()
        self.trunk = fresh((features, *config.hidden, action), config.activation, config.last_gain, None)
        self.log_std = nn.Parameter(torch.full((action,), config.log_std), requires_grad=config.learn_std)

    def forward(self, features: Float[Tensor, "B F"]) -> tuple[Float[Tensor, "B A"], Float[Tensor, " A"]]:
        """Mean and log standard deviation."""
        return self.trunk(features), self.log_std

    def sample(
        self, features: Float[Tensor, "B F"], eps: Float[Tensor, "B A"]
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """Actions from standard normal `eps`, and their log-density."""
        mean, log_std = self(features)
        action = torch.addcmul(mean, log_std.exp(), eps)
        return action, normal_log_prob(action, mean, log_std.exp()).sum(1)

    def log_prob(self, features: Float[Tensor, "B F"], action: Float[Tensor, "B A"]) -> Float[Tensor, " B"]:
        """Log-density of actions."""
        mean, log_std = self(features)
        return normal_log_prob(action, mean, log_std.exp()).sum(1)

    def entropy(self) -> Float[Tensor, ""]:
        """Nats, the same in every state."""
        return (self.log_std + 0.5 * (1 + LOG_2PI)).sum()

    def mode(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B A"]:
        """The mean."""
        return self.trunk(features)


@dataclass(frozen=True)
class ValueMLP:
    """A plain MLP to a state's value; `build` makes it."""

    hidden: tuple[int, ...] = (256, 256)
    activation: Activation = "silu"
    last_gain: float = 0.25
    last_bias: float = 0.25

    def build(self, features: int) -> Value:
        """The critic for F = features."""
        return Value(self, features)


class Value(nn.Module):
    """V(obs)."""

    def __init__(self, config: ValueMLP, features: int) -> None:
        super().__init__()
        dims = (features, *config.hidden, 1)
        self.trunk = fresh(dims, config.activation, config.last_gain, config.last_bias)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        """Value per row."""
        return self.trunk(features).squeeze(-1)


def fresh(dims: tuple[int, ...], act: Activation, last_gain: float, last_bias: float | None) -> nn.Sequential:
    """A perceptron with He's normal weights (2015) and biases 0, its last layer orthogonal; no bias there if None."""
    layers = trunk(dims, act, residual=False)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    last = nn.Linear(dims[-2], dims[-1], bias=last_bias is not None)
    nn.init.orthogonal_(last.weight, last_gain)
    if last_bias is not None:
        nn.init.constant_(last.bias, last_bias)
    layers[-1] = last
    return layers
