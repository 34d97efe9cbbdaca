"""Optimisers of off-policy methods: which weights they move, and one step down a loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..shapes import Float


def adam(modules: Iterable[nn.Module], lr: float) -> torch.optim.Optimizer:
    """Adam over the trainable weights, one kernel per step."""
    return torch.optim.Adam(trainable(modules), lr=lr, fused=True)


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Weights that take gradients."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def descend(
    optimizer: torch.optim.Optimizer,
    loss: Float[Tensor, ""],
    max_norm: float | None,
    weights: Iterable[nn.Parameter] | None = None,
) -> dict[str, Tensor]:
    """One optimiser step down a loss; other weights in its graph get no gradient and cost nothing.

    Args:
        optimizer: moves all its weights, also those whose gradient was set before.
        loss: mean over the batch.
        max_norm: bound of the gradient's norm; None: no bound.
        weights: what the loss moves; None: all of the optimiser's.

    Returns:
        The gradients' norm before clipping, where it is bounded.
    """
    moved = [p for group in optimizer.param_groups for p in group["params"]] if weights is None else list(weights)
    for weight in moved:
        weight.grad = None
    loss.backward(inputs=moved)
    norm = {} if max_norm is None else {"grad_norm": nn.utils.clip_grad_norm_(moved, max_norm, foreach=True)}
    optimizer.step()
    return norm
