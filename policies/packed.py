"""Linear layers whose weights are laid out once for many calls.

The fast kernel that `matmul.py` may switch to (oneDNN's) rearranges the weights at every call; a chain calls every
layer at every step and decision with the same ones. So they are kept rearranged until they change. Without gradients
only, and only where that kernel was found to be fast and accurate.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


def can_pack(like: Tensor) -> bool:
    """Whether layers that work on tensors like this one may be packed now."""
    return (
        like.device.type == "cpu"
        and like.dtype == torch.float32
        and not torch.is_grad_enabled()
        and torch.get_float32_matmul_precision() == "medium"
        and torch.backends.mkldnn.is_available()
        and not torch.compiler.is_compiling()
    )


@dataclass(frozen=True)
class PackedLinear:
    """x W^T + b, for x of `rows` rows."""

    source: Tensor
    """the weights it was made from; holding them keeps their memory from being used by others"""
    version: int
    """of the weights: every change in place counts it up"""
    rows: int
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) to (rows, out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """The sum to + x W^T + b."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, to, self.weight, self.bias, "add")

    def fits(self, layer: nn.Linear, rows: int) -> bool:
        """Whether the layer is still as it was; the bias may change in place, for it is used as it is."""
        same = self.source.data_ptr() == layer.weight.data_ptr() and self.bias.data_ptr() == layer.bias.data_ptr()
        return same and self.version == layer.weight._version and self.rows == rows


_PACKED: WeakKeyDictionary[nn.Linear, PackedLinear] = WeakKeyDictionary()


def pack(layer: nn.Linear, rows: int) -> PackedLinear:
    """A layer packed for that many rows; made anew if its weights have changed."""
    known = _PACKED.get(layer)
    if known is None or not known.fits(layer, rows):
        source = layer.weight.detach()
        weight = torch.ops.mkldnn._reorder_linear_weight(source, rows)
        known = _PACKED[layer] = PackedLinear(source, layer.weight._version, rows, weight, layer.bias.detach())
    return known
