"""A policy as the arrays that `runtime/chain.py` walks with numpy alone."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from ..errors import UserError
from ..policies import Policy
from ..policies.denoiser import Denoiser
from ..policies.network import DenoisingMLP
from ..policies.normalizer import Normalizer
from ..policies.policy import ACTION
from ..spec import PolicySpec

Arrays = dict[str, np.ndarray]


def chain_facts(policy: Policy) -> dict[str, Any]:
    """What the arrays do not say, as JSON values.

    Raises:
        UserError: for a network that is not the denoising MLP, sees pictures, makes past actions too or knows prefixes.
    """
    network, sampler = policy.config.network, policy.config.sampler
    other = not isinstance(policy.network, DenoisingMLP) or policy.config.past_actions or policy.spec.max_prefix
    if other or policy.network.encoder is not None:
        raise UserError(
            "a .npz or .c file holds MLP policies without pictures, past_actions or max_prefix only: "
            "export to a path that ends in .onnx"
        )
    return {
        "observations": list(policy.spec.obs),
        "activation": network.activation,
        "residual": network.residual,
        "clip_data": sampler.clip_data,
        "clip_mean": sampler.clip_mean,
        "noise_clip": sampler.noise_clip,
        "first_tuned": policy.first_tuned if policy.prefix is not None else 0,
    }


@torch.no_grad()
def chain_arrays(policy: Policy) -> Arrays:
    """Normalisers, coefficients (5, K) and weights of a policy on the CPU, float32."""
    arrays = {"coefficients": policy.transitions().coefficients}
    for name in policy.spec.obs:
        center, half = center_half(policy, name)
        arrays[f"observation.{name}.center"] = center
        arrays[f"observation.{name}.scale"] = inverse(half)
    arrays["action.center"], arrays["action.half"] = center_half(policy, ACTION)
    arrays |= _network_arrays(policy.network, policy.embed_times(), "tuned")
    if policy.prefix is not None:
        arrays |= _network_arrays(policy.prefix, policy.embed_times(policy.prefix), "frozen")
    return arrays


@runtime_checkable
class Scaled(Protocol):
    """An actor whose scales are known."""

    spec: PolicySpec

    @property
    def normalizer(self) -> Normalizer:
        """Of observations and actions."""
        ...


def center_half(policy: Scaled, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Center and half width of what the normaliser maps to [-1, 1], for an observation or `action`."""
    normalizer = copy.deepcopy(policy.normalizer).double()  # so that the subtraction is exact
    shape = policy.spec.action.shape if name == ACTION else policy.spec.obs[name].shape
    center = normalizer.denormalize(name, torch.zeros(shape, dtype=torch.float64))
    half = normalizer.denormalize(name, torch.ones(shape, dtype=torch.float64)) - center
    return center.float().numpy(), half.float().numpy()


def inverse(half: np.ndarray) -> np.ndarray:
    """What a normaliser multiplies by: 1 / half, 0 for what never changes."""
    return np.divide(1, half, out=np.zeros_like(half), where=half > 0)


def pack(arrays: Mapping[str, np.ndarray], metadata: str) -> bytes:
    """The content of a `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, metadata=np.array(metadata), **arrays)
    return buffer.getvalue()


def _network_arrays(network: Denoiser, times: torch.Tensor, part: str) -> Arrays:
    assert isinstance(network, DenoisingMLP), "chain_facts refuses others"
    first, *rest = (m for m in network.trunk.modules() if isinstance(m, nn.Linear))
    from_x, from_time, from_condition = network.split_first()
    tensors = {
        "from_x": from_x,
        "from_condition": from_condition,
        "bias": first.bias,
        "time": times @ from_time.t(),
    }
    condition = [m for m in network.condition.modules() if isinstance(m, nn.Linear)]
    for kind, layers in (("condition", condition), ("layers", rest)):
        for i, layer in enumerate(layers):
            tensors |= {f"{kind}.{i}.weight": layer.weight, f"{kind}.{i}.bias": layer.bias}
    return {f"{part}.{key}": np.ascontiguousarray(value.numpy()) for key, value in tensors.items()}
