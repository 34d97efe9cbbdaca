"""Gaussian paths from noise to action: x_t = alpha(t) * data + sigma(t) * noise.

Time runs from noise (t = 0) to action (t = 1). Image papers count the other way: a diffusion index i of K
(0 = least noise) is the level j = K - 1 - i, at t = j / K, and the clean action is level K.
Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float

Predicts = Literal["eps", "data", "velocity"]
Times = TypeVar("Times", np.ndarray, Tensor)


@runtime_checkable
class Path(Protocol):
    """How much data and how much noise there is at a time, and the time grid that a sampler walks."""

    def alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of data and noise at times t, in float64."""
        ...

    def alpha_sigma_tensor(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """The same where t lives."""
        ...

    def time_input(self, t: Times) -> Times:
        """The number shown to the network at time t."""
        ...

    def grid(self, steps: int) -> np.ndarray:
        """Times t_0 < ... < t_steps = 1 that a sampler of `steps` transitions visits."""
        ...

    def draw_t(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Training times, in float64."""
        ...

    def check_predicts(self, predicts: Predicts) -> None:
        """Refuse a parameterisation that this path does not define."""
        ...


@dataclass(frozen=True)
class CosinePath:
    """The variance-preserving cosine schedule as a table of `levels` steps (Nichol & Dhariwal 2021, as in DPPO).

    The grid of K + 1 points reaches 1, so beta's clip at 0.999 decides the noisiest level.
    """

    levels: int = 20
    """diffusion steps of training; a sampler may visit fewer"""
    s: float = 0.008
    """offset of the cosine"""

    def alpha_bar(self) -> np.ndarray:
        """Squared data coefficient per diffusion index, least noise first; shape (levels,)."""
        x = np.linspace(0, self.levels + 1, self.levels + 1) / (self.levels + 1)
        bar = np.cos((x + self.s) / (1 + self.s) * np.pi / 2) ** 2
        beta = np.clip(1 - bar[1:] / bar[:-1], 0, 0.999)
        return np.cumprod(1 - beta)

    def alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients at tabulated times j / levels."""
        table = np.append(self.alpha_bar()[::-1], 1.0)
        bar = table[(t * self.levels).round().astype(int)]
        return np.sqrt(bar), np.sqrt(1 - bar)

    def alpha_sigma_tensor(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """The same where t lives."""
        alpha, sigma = _table(self, t.device)[:, (t * self.levels).round().long()]
        return alpha, sigma

    def time_input(self, t: Times) -> Times:
        """The diffusion index, least noise = 0."""
        return self.levels - 1 - (t * self.levels).round()

    def grid(self, steps: int) -> np.ndarray:
        """Evenly spaced indices counted from the clean end ("leading" spacing), then the action."""
        if not 1 <= steps <= self.levels:
            raise UserError(f"sampler steps {steps} must lie between 1 and the path's levels {self.levels}")
        index = np.arange(steps)[::-1] * (self.levels // steps)
        return np.append(self.levels - 1 - index, self.levels) / self.levels

    def draw_t(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Every level but the clean one, uniformly."""
        level = torch.randint(self.levels, (n,), generator=generator, device=device)
        return level.double() / self.levels

    def check_predicts(self, predicts: Predicts) -> None:
        """A table has no derivative, so no velocity."""
        if predicts == "velocity":
            raise UserError("a tabulated diffusion path has no velocity: predict 'eps' or 'data', or use LinearPath")


@dataclass(frozen=True)
class LinearPath:
    """The straight path of rectified flow: alpha = t, sigma = 1 - t (Liu et al. 2022)."""

    def alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients at any time in [0, 1]."""
        return t, 1 - t

    def alpha_sigma_tensor(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """The same where t lives."""
        return t, 1 - t

    def time_input(self, t: Times) -> Times:
        """Time itself."""
        return t

    def grid(self, steps: int) -> np.ndarray:
        """Uniform: t_k = k / steps."""
        if steps < 1:
            raise UserError(f"sampler steps {steps} must be at least 1")
        return np.arange(steps + 1) / steps

    def draw_t(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Uniform in [0, 1)."""
        return torch.rand(n, generator=generator, device=device, dtype=torch.float64)

    def check_predicts(self, predicts: Predicts) -> None:
        """At t = 0 there is no data in x, so eps alone does not give the data."""
        if predicts == "eps":
            raise UserError("on a linear path predict 'velocity' or 'data': eps does not determine the data at t = 0")


@lru_cache(maxsize=64)
def _table(path: CosinePath, device: torch.device) -> Float[Tensor, "2 K1"]:
    return torch.as_tensor(np.stack(path.alpha_sigma(np.arange(path.levels + 1) / path.levels)), device=device)


def data_from_output(predicts: Predicts, alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (p, q) with data = p * x_t + q * output.

    The velocity is that of the linear path, data - noise.
    """
    if predicts == "eps":
        return 1 / alpha, -sigma / alpha
    if predicts == "velocity":
        return np.ones_like(alpha), sigma
    return np.zeros_like(alpha), np.ones_like(alpha)


def training_target(
    predicts: Predicts, data: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"]
) -> Float[Tensor, "B H A"]:
    """What the network's output is regressed on."""
    return {"eps": noise, "data": data, "velocity": data - noise}[predicts]
