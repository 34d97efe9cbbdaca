"""Fair timing: variants take turns in one process, and the fastest turn of each counts.

Whatever disturbs the machine for a while then disturbs all of them; the minimum is what the code needs when
nothing else runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..deploy.runtime.pace import no_garbage_collection


@dataclass(frozen=True)
class Row:
    """One measured number."""

    name: str
    """`<group>/<case>/.../<variant>`"""
    value: float
    unit: str
    fraction_of_limit: float | None = None
    """how much of what the machine can do is reached; 1 is all"""
    ratios: Mapping[str, float] | None = None
    """peer -> how many times faster than it"""
    spread: Mapping[str, float] | None = None
    """of a value that is a median: `p99` in the same unit, and `p99/p50`"""
    note: str = ""
    """why there is no value, which is NaN then"""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 12
    """turns per variant"""
    burst: int = 5
    """calls per turn"""
    envs: int = 40
    decisions: int = 50
    """decisions per environment in one training iteration"""
    requests: int = 10_000
    """requests to a policy server"""
    compiled: bool = False
    """also measure torch.compile, which takes minutes to prepare"""
    unet: bool = False
    """also play the large U-Net by every player"""


QUICK = Effort(rounds=2, burst=2, envs=4, decisions=4, requests=200)
"""to see that everything runs; the numbers mean little"""


@dataclass(frozen=True)
class Variant:
    """Something to time, and the settings of torch under which it runs."""

    run: Callable[[], Any]
    fast_matmul: bool = False
    """by the kernels that `policies.matmul` may switch to"""
    threads: int | None = None
    """None: as many as torch takes by itself"""


def race(variants: Mapping[str, Variant], effort: Effort) -> dict[str, float]:
    """Seconds of the fastest call of each variant."""
    return {name: min(seconds) for name, seconds in times(variants, effort).items()}


def times(variants: Mapping[str, Variant], effort: Effort) -> dict[str, list[float]]:
    """Seconds of every call of each variant; every turn starts with a call that does not count."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    with no_garbage_collection():
        for _ in range(effort.rounds):
            for name, variant in variants.items():
                with settings(variant.fast_matmul, variant.threads):
                    variant.run()
                    measured[name] += [_seconds(variant.run) for _ in range(effort.burst)]
    return measured


def spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return float(p50), float(p99)


def ratios(seconds: Mapping[str, float], ours: str, peers: Mapping[str, Any]) -> dict[str, float]:
    """How many times faster `ours` is than each peer."""
    return {peer: seconds[peer] / seconds[ours] for peer in peers}


@contextmanager
def settings(fast_matmul: bool, threads: int | None) -> Iterator[None]:
    """Torch's kernels and threads for a while."""
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("medium" if fast_matmul else "highest")
    torch.set_num_threads(threads or before[1])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
