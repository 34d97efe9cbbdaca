"""Physical units to [-1, 1] and back; fitted on data and stored inside the weights, so no file is without it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..spec import ArraySpec

EPSILON = 1e-6
"""added to the range of each dimension, as in DPPO's data scripts"""
ACTION = "action"
"""name of the actions among what is normalised"""
CONSTANT = 1e-5
"""a dimension whose range is smaller is constant: it normalises to 0 and comes back as its value"""


class Normalizer(nn.Module):
    """normalised = (x - center) / half per element; `half` is 0 for constant dimensions."""

    def __init__(self, specs: Mapping[str, ArraySpec]) -> None:
        super().__init__()
        for name, spec in specs.items():
            self.register_buffer(_center(name), torch.full(spec.shape, torch.nan))
            self.register_buffer(_half(name), torch.full(spec.shape, torch.nan))

    def fit(self, name: str, low: np.ndarray, high: np.ndarray) -> None:
        """Map [low, high] to [-1, 1]."""
        span = np.asarray(high, np.float64) - np.asarray(low, np.float64)
        half = np.where(span < CONSTANT, 0.0, (span + EPSILON) / 2)
        self.set(name, np.asarray(low, np.float64) + half, half)

    def fit_gaussian(self, name: str, mean: np.ndarray, std: np.ndarray) -> None:
        """Map mean to 0 and one standard deviation to 1."""
        std = np.asarray(std, np.float64)
        self.set(name, np.asarray(mean, np.float64), np.where(std < CONSTANT, 0.0, std))

    def set(self, name: str, center: np.ndarray, half: np.ndarray) -> None:
        """Set both coefficients.

        Raises:
            UserError: if they are not finite or of another shape.
        """
        for buffer, value in ((_center(name), center), (_half(name), half)):
            old = self.get_buffer(buffer)
            if old.shape != value.shape or not np.isfinite(value).all():
                raise UserError(
                    f"normaliser of '{name}' needs finite values of shape {tuple(old.shape)}, got {value.shape}: "
                    "check the data with `noisepilot data check`"
                )
            old.copy_(torch.as_tensor(value))

    def require_fitted(self) -> None:
        """Refuse to work with statistics that were never fitted."""
        for key, value in self.named_buffers():
            if not torch.isfinite(value).all():
                name = key.partition("_")[2].replace("__", ".")
                raise UserError(f"the normaliser of '{name}' is missing: fit it on data (pretrain does) before use")

    def normalize(self, name: str, x: Tensor) -> Tensor:
        """Physical to normalised; not clipped."""
        center, half = self.get_buffer(_center(name)), self.get_buffer(_half(name))
        return (x.to(center.dtype) - center) * torch.where(half > 0, 1 / half, 0.0)

    def denormalize(self, name: str, x: Tensor) -> Tensor:
        """Normalised to physical."""
        return self.get_buffer(_center(name)) + x * self.get_buffer(_half(name))


def _center(name: str) -> str:
    return "center_" + name.replace(".", "__")


def _half(name: str) -> str:
    return "half_" + name.replace(".", "__")
