"""Gaussian paths from noise to action: x_t = alpha(t) * data + sigma(t) * noise.

Time runs from noise (t = 0) to action (t = 1). Image papers count the other way: a diffusion index i of K
(0 = least noise) is the level j = K - 1 - i, at t = j / K, and the clean action is level K.
Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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

    def inputs(self, steps: int) -> np.ndarray:
        """The numbers shown to the network at those times, the last left out; (steps,)."""
        ...

    def draw_t(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Training times, in float64."""
        ...

    def check_predicts(self, predicts: Predicts) -> None:
        """Refuse a parameterisation that this path does not define."""
        ...


@dataclass(frozen=True)
class TablePath:
    """A diffusion schedule as a table of `levels` steps; `betas` makes it one."""

    levels: int = 20
    """diffusion steps of training; a sampler may visit fewer"""

    def betas(self) -> np.ndarray:
        """Variance added per diffusion index, least noise first; shape (levels,)."""
        raise NotImplementedError

    def alpha_bar(self) -> np.ndarray:
        """Squared data coefficient per diffusion index, least noise first; shape (levels,)."""
        return np.cumprod(1 - self.betas())

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

    def inputs(self, steps: int) -> np.ndarray:
        """The diffusion indices that a sampler visits."""
        return self.time_input(self.grid(steps)[:-1])

    def draw_t(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Every level but the clean one, uniformly."""
        level = torch.randint(self.levels, (n,), generator=generator, device=device)
        return level.double() / self.levels

    def check_predicts(self, predicts: Predicts) -> None:
        """A table has no derivative, so no velocity."""
        if predicts == "velocity":
            raise UserError("a tabulated diffusion path has no velocity: predict 'eps' or 'data', or use LinearPath")


@dataclass(frozen=True)
class CosinePath(TablePath):
    """The variance-preserving cosine schedule (Nichol & Dhariwal 2021, as in DPPO).

    The grid of K + 1 points reaches 1, so beta's clip at 0.999 decides the noisiest level.
    """

    s: float = 0.008
    """offset of the cosine"""

    def betas(self) -> np.ndarray:
        """From the ratio of neighbouring squared cosines."""
        x = np.linspace(0, self.levels + 1, self.levels + 1) / (self.levels + 1)
        bar = np.cos((x + self.s) / (1 + self.s) * np.pi / 2) ** 2
        return np.clip(1 - bar[1:] / bar[:-1], 0, 0.999)


@dataclass(frozen=True)
class VPPath(TablePath):
    """The discretised variance-preserving SDE for few steps (Xiao et al. 2022, as in Diffusion-QL)."""

    beta_min: float = 0.1
    beta_max: float = 10.0

    def betas(self) -> np.ndarray:
        """The integral of a linearly rising beta over each step."""
        i = np.arange(1, self.levels + 1)
        rise = 0.5 * (self.beta_max - self.beta_min) * (2 * i - 1) / self.levels**2
        return 1 - np.exp(-self.beta_min / self.levels - rise)


@dataclass(frozen=True)
class TimeDraw:
    """How training times are drawn in [0, 1]."""

    kind: Literal["uniform", "logit_normal", "beta"] = "uniform"
    mean: float = 0.0
    """of the normal whose sigmoid is t (Esser et al. 2024)"""
    std: float = 1.0
    a: float = 1.5
    """beta: t = scale * (1 - b) with b ~ Beta(a, b), more noise more often (Black et al. 2024)"""
    b: float = 1.0
    scale: float = 0.999

    def __call__(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Times in float64."""
        u = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
        if self.kind == "logit_normal":
            return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))
        if self.kind == "beta":
            if self.b != 1.0:
                raise UserError("times of kind 'beta' need b = 1: only then has the distribution an inverse")
            return self.scale * (1 - u ** (1 / self.a))
        return u


@dataclass(frozen=True)
class LinearPath:
    """The straight path of rectified flow: alpha = t, sigma = 1 - t (Liu et al. 2022)."""

    times: TimeDraw = field(default_factory=TimeDraw)
    """training times"""
    shown: Literal["grid", "stretched"] = "grid"
    """what a sampler shows the network: the times t_k = k / K that it visits, or k / (K - 1), which reaches 1 one
    step early (the grid of ReinFlow's published results; its weights need it)"""

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

    def inputs(self, steps: int) -> np.ndarray:
        """The grid, or the stretched one."""
        return np.linspace(0, 1, steps) if self.shown == "stretched" else self.grid(steps)[:-1]

    def draw_t(self, n: int, generator: torch.Generator | None, device: torch.device) -> Float[Tensor, " B"]:
        """Training times as `times` says."""
        return self.times(n, generator, device)

    def check_predicts(self, predicts: Predicts) -> None:
        """At t = 0 there is no data in x, so eps alone does not give the data."""
        if predicts == "eps":
            raise UserError("on a linear path predict 'velocity' or 'data': eps does not determine the data at t = 0")


@lru_cache(maxsize=64)
def _table(path: TablePath, device: torch.device) -> Float[Tensor, "2 K1"]:
    return torch.as_tensor(np.stack(path.alpha_sigma(np.arange(path.levels + 1) / path.levels)), device=device)


def data_from_output(predicts: Predicts, alpha: Times, sigma: Times) -> tuple[Times, Times]:
    """Coefficients (p, q) with data = p * x_t + q * output.

    The velocity is that of the linear path, data - noise.
    """
    if predicts == "eps":
        return 1 / alpha, -sigma / alpha
    if predicts == "velocity":
        return alpha * 0 + 1, sigma
    return alpha * 0, alpha * 0 + 1


def training_target(
    predicts: Predicts, data: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"]
) -> Float[Tensor, "B H A"]:
    """What the network's output is regressed on."""
    return {"eps": noise, "data": data, "velocity": data - noise}[predicts]
