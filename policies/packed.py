"""Linear layers whose weights are laid out once for many calls.

The fast float32 kernel that `matmul.py` may switch to (oneDNN's) rearranges the weights at every call. A rollout
calls every layer thousands of times with the same ones, so there they are rearranged once, for a block of code in
which nobody changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def packed(network: nn.Module, rows: int) -> Iterator[None]:
    """Inside the block, the network's linear layers are fast for inputs of `rows` rows without gradients.

    The weights must not change inside. Where the fast kernel is not in use, or the weights are not float32 on a CPU,
    nothing happens.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Linear) and _can_pack(m)]
    for layer in layers:
        layer.forward = _packed_forward(layer, rows)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _can_pack(layer: nn.Linear) -> bool:
    return (
        torch.get_float32_matmul_precision() == "medium"
        and torch.backends.mkldnn.is_available()
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
    )


def _packed_forward(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    plain = layer.forward

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return plain(x)
        return torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, "none", [], "")

    return forward
