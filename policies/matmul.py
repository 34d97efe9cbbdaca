"""Float32 matrix products by the fastest kernel that is still float32.

On some processors PyTorch's default kernel leaves half of the speed unused, and
`set_float32_matmul_precision("medium")` picks another that is float32 arithmetic all the same; on others "medium"
means bfloat16. So a probe decides: the switch stays only where it is both faster and as accurate.
"""

from __future__ import annotations

import time

import torch

SPEEDUP, ACCURACY = 1.15, 4.0
"""least gain in time, and the largest error in units of the default kernel's"""


def use_fast_matmul(enable: bool | None = None) -> bool:
    """Switch CPU float32 products to the fast kernel if a probe of some 20 ms allows it; returns the decision.

    A resumed training passes the decision of its first start, for the kernel decides the last bits.
    """
    torch.set_float32_matmul_precision("highest")  # whatever was decided earlier in this process
    decision = _probe() if enable is None else enable
    torch.set_float32_matmul_precision("medium" if decision else "highest")
    return decision


def _probe(size: int = 384) -> bool:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    default = torch.get_float32_matmul_precision()
    try:
        time_default, error_default = _measure(a, b, exact)
        torch.set_float32_matmul_precision("medium")
        time_fast, error_fast = _measure(a, b, exact)
    finally:
        torch.set_float32_matmul_precision(default)
    return time_default > SPEEDUP * time_fast and error_fast <= ACCURACY * error_default


def _measure(a: torch.Tensor, b: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        product = torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    # The fastest counts: what else the machine does must not decide.
    return min(seconds), (product.double() - exact).abs().max().item()
