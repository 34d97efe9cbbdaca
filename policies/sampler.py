"""The denoising core: one Gaussian transition for diffusion and flow, drawn and scored by the same code.

    mean = alpha_s * data_hat + sqrt(sigma_s^2 - std^2) * eps_hat
    std = eta * sigma_s * sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)

from time t to s: eta = 1 is the posterior of x_s given x_t and the data on any Gaussian path (DDPM: Ho et al. 2020),
eta = 0 DDIM (Song et al. 2021) and, on the linear path, Euler's step of the flow; every eta in between keeps the
path's marginals. eps_hat follows from the (clipped) data_hat, so with the network's output o

    data_hat = clip(p_k x + q_k o),    mean = c_k data_hat + d_k x

and every coefficient is a number known before the loop. Shapes: B chains, S stored transitions, K steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ..shapes import Float
from .path import Path, Predicts, data_from_output

Step = Callable[[int, Tensor], Tensor]
"""(k, x_k) -> network output at transition k"""
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Sampler:
    """How a policy turns noise into an action when it is used."""

    steps: int = 20
    """K: denoising steps, one network call each"""
    eta: float = 1.0
    """1: DDPM, 0: DDIM or a flow's Euler steps"""
    clip_data: float | None = 1.0
    """bound of the predicted action at every step; None: unbounded"""
    noise_clip: float = 3.0
    """bound of the noise added at a step, in standard deviations"""

    @property
    def deterministic(self) -> bool:
        """No noise beyond the initial one."""
        return self.eta == 0.0


@dataclass(frozen=True)
class Stochastic:
    """What makes a chain explore and gives it a likelihood; replaces the sampler's own eta (DPPO, Sec. 4.3)."""

    eta: float = 1.0
    min_std: float = 0.1
    """floor of the standard deviation when drawing; never enters the mean"""
    min_score_std: float = 0.1
    """floor when scoring"""


@dataclass(frozen=True)
class Chain:
    """One denoising chain per decision."""

    x: Float[Tensor, "B S1 H A"]
    """the S + 1 latents from transition `start` on; the last one is the action, normalised"""
    log_prob: Float[Tensor, "B S H A"] | None
    """per element; None where the chain was drawn without a likelihood"""
    noise: Float[Tensor, "B N H A"]
    """initial noise, then (unless deterministic) one draw per step"""
    start: int
    """first stored transition"""

    def __post_init__(self) -> None:
        if self.log_prob is not None and self.log_prob.shape[1] != self.x.shape[1] - 1:
            raise ValueError(f"{self.x.shape[1]} latents need {self.x.shape[1] - 1} log-probs per chain")

    @property
    def action(self) -> Float[Tensor, "B H A"]:
        """The end of the chain, normalised."""
        return self.x[:, -1]


@dataclass(frozen=True)
class Transitions:
    """The K transitions of a path, a parameterisation and an eta, as numbers."""

    path: Path
    predicts: Predicts
    steps: int
    eta: float
    clip_data: float | None

    @cached_property
    def t(self) -> np.ndarray:
        """Times t_0 ... t_K."""
        return self.path.grid(self.steps)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Rows p, q, c, d, std over the K transitions; float64, shape (5, K)."""
        alpha, sigma = self.path.alpha_sigma(self.t)
        a_t, a_s, s_t, s_s = alpha[:-1], alpha[1:], sigma[:-1], sigma[1:]
        p, q = data_from_output(self.predicts, a_t, s_t)
        std = self.eta * s_s * np.sqrt(1 - (a_t * s_s / (a_s * s_t)) ** 2)
        d = np.sqrt(np.maximum(s_s**2 - std**2, 0)) / s_t
        return np.stack([p, q, a_s - d * a_t, d, std])

    @cached_property
    def rows(self) -> list[list[float]]:
        """The columns of `coefficients` as plain numbers, one list per transition."""
        return self.coefficients.T.tolist()

    @cached_property
    def std(self) -> np.ndarray:
        """Standard deviation of each transition before any floor; shape (K,)."""
        return self.coefficients[4]

    def mean(self, output: Tensor, x: Tensor, k: int | Tensor) -> Float[Tensor, "B H A"]:
        """Mean of transition k (one for the batch, or one per row) from the network's output."""
        if isinstance(k, int):
            p, q, c, d, _ = self.rows[k]
        else:
            p, q, c, d = _table(self, x.device, x.dtype)[:4, k, None, None]
        data = _mix(p, x, q, output)
        if self.clip_data is not None:
            data = data.clamp(-self.clip_data, self.clip_data)
        return _mix(d, x, c, data)

    def floored(self, minimum: float) -> np.ndarray:
        """Standard deviations with a floor, for drawing or scoring."""
        return np.maximum(self.std, minimum)


def _mix(a: float | Tensor, x: Tensor, b: float | Tensor, y: Tensor) -> Tensor:
    """The sum a * x + b * y in two kernels."""
    return torch.addcmul(a * x, b, y) if isinstance(b, Tensor) else torch.add(a * x, y, alpha=b)


@lru_cache(maxsize=64)
def _table(transitions: Transitions, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(transitions.coefficients, device=device, dtype=dtype)


def normal_log_prob(x: Tensor, mean: Tensor, std: float | Tensor) -> Tensor:
    """Log-density of each element under N(mean, std^2); `std` is a number or broadcasts against x."""
    log_std = std.log() if isinstance(std, Tensor) else float(np.log(std))
    return -0.5 * ((x - mean) / std) ** 2 - log_std - 0.5 * LOG_2PI


def denoise(
    step: Step, transitions: Transitions, noise: Float[Tensor, "B N H A"], noise_clip: float
) -> Float[Tensor, "B H A"]:
    """Walk the whole chain and return its end alone: what deployment runs and what is exported."""
    x, kicks = noise[:, 0], _kicks(noise, transitions.std, noise_clip)
    for k in range(transitions.steps):
        mean = transitions.mean(step(k, x), x, k)
        x = mean + kicks[:, k] if transitions.std[k] > 0 else mean
    return x


def sample_chain(
    step: Step,
    transitions: Transitions,
    noise: Float[Tensor, "B N H A"],
    *,
    start: int,
    noise_clip: float,
    stochastic: Stochastic | None,
) -> Chain:
    """Walk the chain, keeping the latents from transition `start` on, and their log-probs if it is `stochastic`."""
    std = transitions.floored(stochastic.min_std) if stochastic else transitions.std
    x, kicks = noise[:, 0], _kicks(noise, std, noise_clip)
    latents, means = [], []
    for k in range(transitions.steps):
        if k >= start:
            latents.append(x)
        mean = transitions.mean(step(k, x), x, k)
        x = mean + kicks[:, k] if std[k] > 0 else mean
        if k >= start:
            means.append(mean)
    latents = torch.stack([*latents, x], 1)
    if not stochastic or not means:
        return Chain(latents, None, noise, start)
    score = _column(transitions.floored(stochastic.min_score_std)[start:], latents)
    return Chain(latents, normal_log_prob(latents[:, 1:], torch.stack(means, 1), score), noise, start)


def _kicks(noise: Float[Tensor, "B N H A"], std: np.ndarray, clip: float) -> Tensor:
    """What each transition adds to its mean, all at once; (B, N - 1, H, A), empty without draws per step."""
    return noise[:, 1:].clamp(-clip, clip) * _column(std[: noise.shape[1] - 1], noise)


def _column(values: np.ndarray, like: Tensor) -> Float[Tensor, "S 1 1"]:
    return torch.as_tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
