"""The clipped surrogate of PPO, shared by every method that has a ratio. Schulman et al. 2017, arXiv:1707.06347.

Shapes: B samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..shapes import Float

MICRO_BATCH = 1_000
"""rows per backward pass on a CPU: activations of a few hundred units stay in its caches"""


def clipped_surrogate(
    log_ratio: Float[Tensor, " B"], advantage: Float[Tensor, " B"], clip: float | Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """The pessimistic policy loss per sample (eq. 7), to be minimised."""
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return torch.maximum(-advantage * ratio, -advantage * bounded)


def ratio_statistics(
    log_ratio: Float[Tensor, " B"], clip: float | Tensor, weight: Float[Tensor, " B"] | None = None
) -> dict[str, Tensor]:
    """Sums over samples: the k3 estimate of KL(old || new), ratios outside the clip range, the ratio itself."""
    log_ratio = log_ratio.detach()
    ratio = log_ratio.exp()
    columns = {
        "approx_kl": (ratio - 1) - log_ratio,
        "clip_fraction": ((ratio - 1).abs() > clip).to(ratio.dtype),
        "ratio": ratio,
    }
    return {name: (value if weight is None else weight * value).sum() for name, value in columns.items()}


def value_error(
    value: Float[Tensor, " B"], target: Float[Tensor, " B"], old: Float[Tensor, " B"], clip: float | None
) -> Float[Tensor, " B"]:
    """Half the squared error; with `clip`, the larger one of the value and of the value kept within `clip` of old."""
    error = (value - target) ** 2
    if clip is not None:
        error = torch.maximum(error, (old + (value - old).clamp(-clip, clip) - target) ** 2)
    return 0.5 * error


def shuffled_minibatches(
    total: int, size: int, epochs: int, generator: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Random indices in groups of `size`, all of them once per epoch.

    A last, smaller group is left out unless it is the only one.
    """
    for _ in range(epochs):
        order = torch.randperm(total, generator=generator, device=device)
        for start in range(0, max(total - size, 0) + 1, size):
            yield order[start : start + size]


def micro_batches(rows: Tensor, calls: int = 1, size: int | None = None) -> tuple[Tensor, ...]:
    """Parts of a minibatch whose gradients are added up: the same gradient in less memory, on a CPU also faster.

    `calls`: rows of the network that one row here costs. `size`: rows of a part; None: what suits the device.
    """
    if size:
        return rows.split(size)
    return rows.split(max(1, MICRO_BATCH // calls)) if rows.device.type == "cpu" else (rows,)


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - value) / Var(target): 1 is perfect, 0 no better than a constant."""
    return 1 - (target - value).var() / target.var().clamp(min=1e-12)


def mean_metrics(sums: Mapping[str, list[Tensor]]) -> dict[str, float]:
    """Averages of metrics gathered over minibatches; the only place that waits for the device."""
    return {name: float(torch.stack(values).mean()) for name, values in sums.items() if values}
