"""Forward passes in bfloat16 around float32 weights, where the processor multiplies bfloat16 numbers.

Weights, gradients, losses and the optimiser stay float32: bfloat16 has the range of float32, so nothing is scaled.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from ..errors import UserError

Precision = Literal["float32", "bfloat16"]
FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}
"""how Linux names the arithmetic on x86 and ARM"""


def require(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that the device has no arithmetic for.

    Raises:
        UserError: where bfloat16 would only be slower.
    """
    if precision == "bfloat16" and not has_bfloat16(device):
        where = "this processor" if device.type == "cpu" else f"device {device}"
        raise UserError(f"{where} has no bfloat16 arithmetic, so it would be slower: set precision to float32")


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are computed as such; torch itself also takes processors that only emulate them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and not FLAGS.isdisjoint(_processor_flags())


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Inside the block networks compute in this precision; leave it before the backward pass."""
    if precision == "float32":
        return nullcontext()
    # Without the cache: until 2025 torch reused weights cast in a pass without gradients, as targets are made by, in
    # the pass that needs them, and their gradients were lost.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def _processor_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return set()
    return {flag for name, _, flags in lines if name.strip() in ("flags", "Features") for flag in flags.split()}
