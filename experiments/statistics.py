"""Intervals and paired tests for evaluation, in numpy alone.

Success rates: Wilson's score interval (1927). Means: percentile bootstrap (Efron 1979). Paired binary
outcomes: McNemar's exact test; paired returns: sign-flip permutation test. Across tasks: interquartile
mean with a stratified bootstrap (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264).
Every random draw comes from `seed`, so a number in a report can be computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..errors import UserError

BLOCK = 1 << 22
"""numbers drawn at once while resampling, to bound memory"""
EXACT_PAIRS = 14
"""up to this many pairs every sign pattern is tried"""


@dataclass(frozen=True)
class Interval:
    """An estimate and the limits of its confidence interval."""

    mean: float
    low: float
    high: float

    def scaled(self, fn: Callable[[float], float]) -> Interval:
        """Apply an increasing function to the estimate and both limits."""
        return Interval(fn(self.mean), fn(self.low), fn(self.high))

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def wilson(successes: int, episodes: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate; sane at 0 and at `episodes` successes too.

    Raises:
        UserError: for no episodes, or more successes than episodes.
    """
    if not 0 <= successes <= episodes or episodes == 0:
        raise UserError(f"{successes} successes of {episodes} episodes is no rate: evaluate at least one episode")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / episodes
    centre = (rate + z * z / (2 * episodes)) / (1 + z * z / episodes)
    half = z / (1 + z * z / episodes) * math.sqrt(rate * (1 - rate) / episodes + (z / (2 * episodes)) ** 2)
    # At the ends one limit is the rate itself; rounding must not push it past.
    return Interval(rate, min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate))


def bootstrap_mean(x: np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 10_000) -> Interval:
    """Percentile-bootstrap interval of the mean of `x`, shape (E,)."""
    x = _finite(x)
    rng = np.random.default_rng(seed)
    means = np.concatenate([x[rng.integers(0, x.size, (rows, x.size))].mean(1) for rows in _blocks(resamples, x.size)])
    return _percentiles(float(x.mean()), means, level)


def bootstrap_runs(x: np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 4_000) -> Interval:
    """Interval of the mean of `x` (R, E), both runs and episodes redrawn; NaN entries do not count.

    Runs share their episodes' starts, so pooling R * E numbers would claim more evidence than there is.
    """
    x = np.asarray(x, dtype=float)
    known, values = np.isfinite(x), np.nan_to_num(x)
    rng = np.random.default_rng(seed)
    runs = _weights(rng, resamples, x.shape[0])
    episodes = _weights(rng, resamples, x.shape[1])
    sums = np.einsum("br,re,be->b", runs, values, episodes, optimize=True)
    counts = np.einsum("br,re,be->b", runs, known.astype(float), episodes, optimize=True)
    drawn = sums[counts > 0] / counts[counts > 0]
    return _percentiles(float(values.sum() / known.sum()), drawn, level)


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Mean of b - a over pairs with its bootstrap interval; `a[i]` and `b[i]` share their episode."""
    return bootstrap_mean(_differences(a, b), level=level, seed=seed, resamples=resamples)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided exact p-value that paired binary outcomes are equally often true.

    Only the pairs that disagree speak; under the null each falls either way like a fair coin.
    """
    difference = _differences(np.asarray(a, dtype=float) > 0.5, np.asarray(b, dtype=float) > 0.5)
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**n)  # integers of any size: exact until this division


def sign_flip_test(a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = 20_000) -> float:
    """Two-sided p-value that the mean of b - a is zero, from flipping the sign of every pair's difference.

    Exact for up to `EXACT_PAIRS` pairs; beyond that drawn, and never below 1 / (resamples + 1).
    """
    difference = _differences(a, b)
    # The tolerance counts ties that rounding would tell apart.
    limit = abs(difference.mean()) - 1e-12 * np.abs(difference).max(initial=0.0)
    if difference.size <= EXACT_PAIRS:
        patterns = np.arange(2**difference.size)[:, None] >> np.arange(difference.size) & 1
        return float((np.abs((1 - 2 * patterns) @ difference / difference.size) >= limit).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for rows in _blocks(resamples, difference.size):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (rows, difference.size), dtype=np.int8)
        extreme += int((np.abs(signs @ difference) / difference.size >= limit).sum())
    return (extreme + 1) / (resamples + 1)


def iqm(x: np.ndarray) -> float:
    """Mean of the middle half of all numbers in `x`: the lowest and highest quarter are left out."""
    ordered = np.sort(_finite(x))
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def iqm_interval(scores: np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 2_000) -> Interval:
    """Interquartile mean of `scores` (runs, tasks), runs redrawn separately within each task."""
    scores = np.atleast_2d(np.asarray(scores, dtype=float))
    runs, tasks = scores.shape
    rng = np.random.default_rng(seed)
    draws = np.array([iqm(scores[rng.integers(0, runs, (runs, tasks)), np.arange(tasks)]) for _ in range(resamples)])
    return _percentiles(iqm(scores), draws, level)


def normalised_score(value: float, reference: tuple[float, float]) -> float:
    """D4RL's score: 0 is the random and 100 the expert policy, whose returns are `reference`."""
    random, expert = reference
    return 100 * (value - random) / (expert - random)


def _finite(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=float).ravel()
    if x.size == 0 or not np.isfinite(x).all():
        raise UserError("statistics need at least one number, all finite: evaluate at least one episode")
    return x


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _finite(a), _finite(b)
    if a.shape != b.shape:
        raise UserError(f"paired numbers differ in count: {a.size} and {b.size}; evaluate both on the same seeds")
    return b - a


def _blocks(resamples: int, size: int) -> list[int]:
    """Split `resamples` rows of `size` numbers into blocks that fit in memory."""
    rows = max(1, BLOCK // size)
    return [min(rows, resamples - done) for done in range(0, resamples, rows)]


def _weights(rng: np.random.Generator, resamples: int, size: int) -> np.ndarray:
    """How often each of `size` items occurs in each redraw, (resamples, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float)


def _percentiles(estimate: float, draws: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
