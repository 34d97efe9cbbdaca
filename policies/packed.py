"""Layers whose weights are laid out once for many calls.

The fast float32 kernels (oneDNN's) rearrange the weights at every call: those of linear layers where `matmul.py`
switched to them, those of convolutions for 16 rows or more. A rollout calls every layer thousands of times with the
same weights, so there they are rearranged once, for a block of code in which nobody changes them. For fewer rows
PyTorch's own convolution reads large weights at two thirds of the speed, and small ones faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ROWS, LARGE = 16, 2**20
"""rows from which, or elements from which, convolutions gain"""


@contextmanager
def packed(network: nn.Module, rows: int) -> Iterator[None]:
    """Inside the block, the network's layers are fast for inputs of `rows` rows without gradients.

    The weights must not change inside. Where the fast kernels are not in use or would not gain, or the weights are
    not float32 on a CPU, nothing happens.
    """
    layers = {m: pack for m in network.modules() if (pack := _way(m, rows))}
    for layer, pack in layers.items():
        layer.forward = pack(layer, rows)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _way(layer: nn.Module, rows: int) -> Callable[..., Callable[[Tensor], Tensor]] | None:
    """How to pack a layer, if that is possible and pays."""
    if not isinstance(layer, (nn.Linear, nn.Conv1d)) or not torch.backends.mkldnn.is_available():
        return None
    if layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32:
        return None
    if isinstance(layer, nn.Linear):
        return _packed_linear if torch.get_float32_matmul_precision() == "medium" else None
    return _packed_convolution if rows >= ROWS or layer.weight.numel() >= LARGE else None


def _packed_linear(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    plain = layer.forward

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return plain(x)
        return torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, "none", [], "")

    return forward


def _packed_convolution(layer: nn.Conv1d, rows: int) -> Callable[[Tensor], Tensor]:
    # oneDNN's operator has no one-dimensional form: steps are the columns of images one pixel high.
    shape = ([0, int(layer.padding[0])], [1, layer.stride[0]], [1, layer.dilation[0]], layer.groups)
    weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight.detach()[:, :, None], *shape)
    plain = layer.forward

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return plain(x)
        pixels = x[:, :, None]
        return torch.ops.mkldnn._convolution_pointwise(pixels, weight, layer.bias, *shape, "none", [], "")[:, :, 0]

    return forward
