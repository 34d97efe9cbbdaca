"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def average_of(network: Module) -> Module:
    """A frozen copy to average into."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Average <- decay * average + (1 - decay) * network, all tensors in one call."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
