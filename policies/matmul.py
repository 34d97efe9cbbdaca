"""Float32 matrix products by the fastest kernel that is still float32.

On some processors PyTorch's default kernel leaves half of the speed unused, and
`set_float32_matmul_precision("medium")` picks another that is float32 arithmetic all the same; on others "medium"
means bfloat16. So a probe decides: the switch stays only where it is both faster and as accurate.
"""

from __future__ import annotations

import math
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


def _probe(size: int = 384, rounds: int = 20) -> bool:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    seconds, error = {"highest": math.inf, "medium": math.inf}, {}
    try:
        # In turns, and the fastest counts: what else the machine does must not decide.
        for kernel in ("highest", "medium") * rounds:
            torch.set_float32_matmul_precision(kernel)
            start = time.perf_counter()
            product = torch.mm(a, b)
            seconds[kernel] = min(seconds[kernel], time.perf_counter() - start)
            error[kernel] = (product.double() - exact).abs().max().item()
    finally:
        torch.set_float32_matmul_precision(before)
    faster = seconds["highest"] > SPEEDUP * seconds["medium"]
    return faster and error["medium"] <= ACCURACY * error["highest"]
