"""The denoising core: one Gaussian transition for diffusion and flow, drawn and scored by the same code.

    mean = alpha_s * data_hat + sqrt(sigma_s^2 - std^2) * eps_hat
    std = eta * sigma_s * sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)

from time t to s: eta = 1 is the posterior of x_s given x_t and the data on any Gaussian path (DDPM: Ho et al. 2020),
eta = 0 DDIM (Song et al. 2021) and, on the linear path, Euler's step of the flow; every eta in between keeps the
path's marginals. eps_hat follows from the (clipped) data_hat, so with the network's output o

    data_hat = clip(p_k x + q_k o),    mean = c_k data_hat + d_k x

and every coefficient is a number known before the loop. Two other families are of the same form: consistency models
draw the noise of x_s anew (std = sigma_s), and a flow's SDE adds a drift and noise that cancel in the marginals.
Shapes: B chains, S stored transitions, K steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float
from .path import LinearPath, Path, Predicts, data_from_output

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
    clip_mean: float | None = None
    """bound of every transition's mean and of the action at the chain's end (flows, instead of `clip_data`)"""
    transition: Literal["posterior", "renoise", "sde"] = "posterior"
    """posterior: DDPM to DDIM; renoise: consistency models; sde: the stochastic flow of Flow-GRPO, eta its strength"""

    @property
    def deterministic(self) -> bool:
        """No noise beyond the initial one."""
        return self.transition != "renoise" and self.eta == 0.0

    def without_noise(self, steps: int | None = None) -> Sampler:
        """The chain that is a function of its initial noise, in as many or other steps."""
        return replace(self, eta=0.0, transition="posterior", steps=self.steps if steps is None else steps)


@dataclass(frozen=True)
class Stochastic:
    """What makes a chain explore and gives it a likelihood; replaces the sampler's own eta (DPPO, Sec. 4.3)."""

    eta: float = 1.0
    min_std: float = 0.1
    """floor of the standard deviation when drawing; never enters the mean"""
    min_score_std: float = 0.1
    """floor when scoring"""
    transition: Literal["posterior", "sde"] = "posterior"
    """sde: a flow's own (Liu et al. 2025, Flow-GRPO), for which 0.7 is the usual eta"""

    def __post_init__(self) -> None:
        if min(self.min_std, self.min_score_std) <= 0:
            raise UserError("explore.min_std and explore.min_score_std must be positive: without noise no likelihood")


Exploration = Stochastic | Tensor
"""what makes a chain stochastic: a rule, or the standard deviation of every element at every step, (B, K, H, A)"""


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
    """The K transitions of a path, a parameterisation and a sampler, as numbers."""

    path: Path
    predicts: Predicts
    sampler: Sampler

    @property
    def steps(self) -> int:
        """K."""
        return self.sampler.steps

    @cached_property
    def t(self) -> np.ndarray:
        """Times t_0 ... t_K."""
        return self.path.grid(self.steps)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Rows p, q, c, d, std over the K transitions; float64, shape (5, K).

        Raises:
            UserError: for the transition 'sde' on another path than the linear one.
        """
        alpha, sigma = self.path.alpha_sigma(self.t)
        a_t, a_s, s_t, s_s = alpha[:-1], alpha[1:], sigma[:-1], sigma[1:]
        p, q = data_from_output(self.predicts, a_t, s_t)
        if self.sampler.transition == "sde":
            return np.stack([p, q, *self._flow_sde()])
        if self.sampler.transition == "renoise":
            std = s_s
        else:
            std = self.sampler.eta * s_s * np.sqrt(1 - (a_t * s_s / (a_s * s_t)) ** 2)
        d = np.sqrt(np.maximum(s_s**2 - std**2, 0)) / s_t
        return np.stack([p, q, a_s - d * a_t, d, std])

    def _flow_sde(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # x' = x + h [u - g^2 / (2 (1 - t)) (x - t u)] + g sqrt(h) z with g = eta sqrt((1 - t) / t) and the velocity
        # u = (data - x) / (1 - t). At t = 0 the denominator of g is the next time (as in Flow-GRPO's code).
        if not isinstance(self.path, LinearPath):
            raise UserError("the transition 'sde' needs a flow policy: use 'posterior' on a diffusion path")
        t, h = self.t[:-1], np.diff(self.t)
        g2 = self.sampler.eta**2 * (1 - t) / np.where(t > 0, t, self.t[1:])
        c = h / (1 - t) * (1 + g2 * t / (2 * (1 - t)))
        return c, 1 - h * g2 / (2 * (1 - t)) - c, np.sqrt(g2 * h)

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
        data = clamp(_mix(p, x, q, output), self.sampler.clip_data)
        return clamp(_mix(d, x, c, data), self.sampler.clip_mean)

    def floored(self, minimum: float) -> np.ndarray:
        """Standard deviations with a floor, for drawing or scoring."""
        return np.maximum(self.std, minimum)


def clamp(x: Tensor, bound: float | None) -> Tensor:
    """Bounded to +-bound; None: as it is."""
    return x if bound is None else x.clamp(-bound, bound)


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


def denoise(step: Step, transitions: Transitions, noise: Float[Tensor, "B N H A"]) -> Float[Tensor, "B H A"]:
    """Walk the whole chain and return its end alone: what deployment runs and what is exported."""
    x, kicks = noise[:, 0], _kicks(noise, transitions.std, transitions.sampler.noise_clip)
    stochastic = transitions.std > 0
    for k in range(transitions.steps):
        mean = transitions.mean(step(k, x), x, k)
        x = mean + kicks[:, k] if stochastic[k] else mean
    return clamp(x, transitions.sampler.clip_mean) if stochastic[-1] else x


def sample_chain(
    step: Step,
    transitions: Transitions,
    noise: Float[Tensor, "B N H A"],
    *,
    start: int,
    draw: np.ndarray | Tensor,
    score: np.ndarray | Tensor | None,
) -> Chain:
    """Walk the chain, keeping the latents from transition `start` on.

    Args:
        step: the network.
        transitions: what it is walked on.
        noise: initial noise and, where `draw` is positive, one draw per step.
        start: first stored transition.
        draw: standard deviations used for drawing, (K,) or (B, K, H, A).
        score: those used for the log-probs, likewise; None: no log-probs.
    """
    x, kicks = noise[:, 0], _kicks(noise, draw, transitions.sampler.noise_clip)
    latents, means = [], []
    last = transitions.steps - 1
    for k in range(transitions.steps):
        if k >= start:
            latents.append(x)
        mean = x = transitions.mean(step(k, x), x, k)
        if isinstance(draw, Tensor) or draw[k] > 0:
            x = mean + kicks[:, k]
            x = clamp(x, transitions.sampler.clip_mean) if k == last else x
        if k >= start:
            means.append(mean)
    latents = torch.stack([*latents, x], 1)
    if score is None or not means:
        return Chain(latents, None, noise, start)
    std = score[:, start:] if isinstance(score, Tensor) else _column(score[start:], latents)
    return Chain(latents, normal_log_prob(latents[:, 1:], torch.stack(means, 1), std), noise, start)


def _kicks(noise: Float[Tensor, "B N H A"], std: np.ndarray | Tensor, clip: float) -> Tensor:
    """What each transition adds to its mean, all at once; (B, N - 1, H, A), empty without draws per step."""
    draws = noise[:, 1:].clamp(-clip, clip)
    return draws * (std if isinstance(std, Tensor) else _column(std[: draws.shape[1]], noise))


def _column(values: np.ndarray, like: Tensor) -> Float[Tensor, "S 1 1"]:
    return torch.as_tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
