"""Weights of fewer bits: the policy that has them, and an ONNX graph that stores them.

The policy is rounded first, so that everything after is exact: what the graph stores are the rounded numbers
themselves, products stay float32. int8 is one scale per output channel, largest weight / 127.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..errors import UserError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Precision = Literal["float32", "float16", "bfloat16", "int8"]
Module = TypeVar("Module", bound=nn.Module)
LEVELS = 127


@torch.no_grad()
def rounded(policy: Module, precision: Precision) -> Module:
    """A copy whose matrices and kernels hold numbers of this precision alone, in float32.

    Time embeddings, which become numbers, biases and normalisers are kept.

    Raises:
        UserError: if a weight is too large for float16.
    """
    policy = copy.deepcopy(policy)
    for name, weight, axis in _matrices(policy):
        if precision == "int8":
            scale = _along(_scale(weight, axis), weight, axis)
            weight.copy_((weight / scale).round() * scale)
        else:
            weight.copy_(weight.to(getattr(torch, precision)))
        if not weight.isfinite().all():
            raise UserError(f"{name} is not finite in {precision}: export with another --precision")
    return policy


def store(model: ModelProto, policy: nn.Module, precision: Precision) -> None:
    """Replace weights of a graph of `rounded`'s policy by smaller ones and nodes that turn them into float32.

    Args:
        model: its initializers are named like the policy's parameters, after `policy.`.
        policy: before it was rounded; its scales are those of int8.
        precision: not float32.
    """
    graph, nodes = model.graph, []
    found = {tensor.name: tensor for tensor in graph.initializer}
    for name, weight, axis in _matrices(policy):
        tensor = found.get("policy." + name)
        if tensor is not None and tuple(tensor.dims) == tuple(weight.shape):
            make = _as_int8 if precision == "int8" else _as_half
            nodes.append(make(graph, tensor, weight, axis, precision))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _as_half(graph: GraphProto, tensor: TensorProto, _: Tensor, axis: int, precision: str) -> NodeProto:
    import onnx

    kind = onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.BFLOAT16
    values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()).to(getattr(torch, precision))
    small = onnx.TensorProto(name=f"{tensor.name}.{precision}", data_type=kind, dims=tensor.dims)
    small.raw_data = values.view(torch.int16).numpy().tobytes()
    node = onnx.helper.make_node("Cast", [small.name], [tensor.name], to=onnx.TensorProto.FLOAT)
    _exchange(graph, tensor, [small])
    return node


def _as_int8(graph: GraphProto, tensor: TensorProto, weight: Tensor, axis: int, _: str) -> NodeProto:
    import onnx

    scale = _scale(weight, axis)
    values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) / _along(scale, weight, axis)
    names = [f"{tensor.name}.int8", f"{tensor.name}.scale"]
    arrays = [values.round().to(torch.int8).numpy(), scale.numpy().astype(np.float32)]
    node = onnx.helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis)
    small = [onnx.numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
    _exchange(graph, tensor, small)
    return node


def _exchange(graph: GraphProto, old: TensorProto, new: list[TensorProto]) -> None:
    graph.initializer.remove(old)
    graph.initializer.extend(new)


def _matrices(policy: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
    # Names, weights, and which axis counts the output channels.
    for name, layer in policy.named_modules():
        if isinstance(layer, (nn.Linear, _ConvNd)) and "time_embedding" not in name:
            yield f"{name}.weight", layer.weight, 1 if isinstance(layer, _ConvTransposeNd) else 0


def _scale(weight: Tensor, axis: int) -> Tensor:
    largest = weight.detach().abs().movedim(axis, 0).flatten(1).amax(1) / LEVELS
    return torch.where(largest > 0, largest, 1.0)


def _along(scale: Tensor, weight: Tensor, axis: int) -> Tensor:
    return scale.view([-1 if i == axis else 1 for i in range(weight.dim())])
