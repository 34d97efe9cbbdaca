"""What the machine can do: arithmetic, reading memory, simulating. Measured in the same run as the code.

A limit in seconds is the larger one of operations / rate and bytes / bandwidth. Both forget everything but matrix
products and weights, so no code reaches a fraction of 1 on them.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import mujoco
import numpy as np
import torch

from ..envs.physics import load_model
from ..envs.threads import Crew
from .race import Effort, Variant, race

BYTES = 4
"""of a float32"""
CHUNK = 4
"""actions per call of an environment"""


@dataclass
class Limits:
    """Rates of this machine, each measured when it is first asked for."""

    effort: Effort
    fast_matmul: bool
    """whether the fast kernels are accurate here and may be used"""
    known: dict[tuple, float] = field(default_factory=dict)

    def gemm(self, threads: int) -> float:
        """Operations per second of large float32 matrix products, by the better of the allowed kernels."""
        return self._once(("gemm", threads), lambda: _gemm_rate(threads, self.fast_matmul, self.effort))

    def bandwidth(self, size: int) -> float:
        """Bytes per second that one thread reads from a block of `size` bytes, again and again."""
        return self._once(("bandwidth", size), lambda: _bandwidth(size, self.effort))

    def physics(self, xml: str, frame_skip: int) -> float:
        """Actions per second of bare `mj_step` loops on all cores."""
        return self._once((xml, frame_skip), lambda: _physics_rate(xml, frame_skip, self.effort))

    def seconds(self, operations: float, weight_bytes: float, reads: int, threads: int) -> float:
        """The least time for `operations` that read `weight_bytes` of weights `reads` times."""
        reading = reads * weight_bytes / self.bandwidth(int(weight_bytes))
        return max(operations / self.gemm(threads), reading)

    def _once(self, key: tuple, measure: Callable[[], float]) -> float:
        if key not in self.known:
            self.known[key] = measure()
        return self.known[key]


def _gemm_rate(threads: int, fast_matmul: bool, effort: Effort, size: int = 768) -> float:
    a, b, c = (torch.ones(size, size) for _ in range(3))

    def product() -> torch.Tensor:
        return torch.mm(a, b, out=c)

    kernels = {f"fast={fast}": Variant(product, fast, threads) for fast in {False, fast_matmul}}
    return 2 * size**3 / min(race(kernels, effort).values())


def _bandwidth(size: int, effort: Effort) -> float:
    # A sum and a product with a vector both do little beside reading; the better one counts.
    rows = torch.ones(max(1, size // BYTES // 512), 512)
    vector = torch.ones(512)
    readers = {"sum": Variant(rows.sum, threads=1), "mv": Variant(lambda: torch.mv(rows, vector), threads=1)}
    return rows.numel() * BYTES / min(race(readers, effort).values())


class BareStepping:
    """`mj_step` loops over `envs` copies of a model on all cores, and nothing else."""

    def __init__(self, xml: str, frame_skip: int, effort: Effort) -> None:
        self.model = load_model(xml, xml)
        self.slots = [mujoco.MjData(self.model) for _ in range(effort.envs)]
        self.frame_skip, self.crew = frame_skip, Crew(effort.envs)
        self.rng = np.random.default_rng(0)

    def __call__(self) -> None:
        """Advance every copy by CHUNK actions."""
        low, high = self.model.actuator_ctrlrange.T
        control = self.rng.uniform(low, high, (len(self.slots), self.model.nu))

        def loop(worker: int, rows: Iterator[int]) -> None:
            # One call for many steps: threads that ask for the interpreter after each step wait for one another.
            for i in rows:
                self.slots[i].ctrl[:] = control[i]
                mujoco.mj_step(self.model, self.slots[i], nstep=self.frame_skip * CHUNK)

        self.crew.run(loop, len(self.slots))

    def rate(self, seconds: float) -> float:
        """Actions per second, if a call takes that long."""
        return len(self.slots) * CHUNK / seconds


def _physics_rate(xml: str, frame_skip: int, effort: Effort) -> float:
    bare = BareStepping(xml, frame_skip, effort)
    seconds = race({"raw": Variant(bare)}, effort)["raw"]
    bare.crew.close()
    return bare.rate(seconds)


def default_threads() -> int:
    """Threads that torch takes by itself."""
    return torch.get_num_threads()
