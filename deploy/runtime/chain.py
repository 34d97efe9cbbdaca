"""The denoising chain of an MLP policy in plain numpy, for machines without onnxruntime.

    data = clip(p_k x + q_k output),    x <- clip'(c_k data + d_k x) + std_k clip(noise_k)

Everything known before the loop was computed at export: the rows p, q, c, d, std and what the time adds to
the first layer. Shapes: B batch, K steps, HA flattened chunk, W width, F features.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from .spec import PolicyError

Array = np.ndarray
Arrays = dict[str, Array]


def read_chain(content: bytes, name: str) -> tuple[Callable[[Arrays], Array], str]:
    """The chain as a function of its named inputs, and its metadata as text.

    Raises:
        PolicyError: if the content is no `.npz` file of ours.
    """
    arrays, text = read_arrays(content, name)
    try:
        return Chain(arrays, json.loads(text)["chain"]), text
    except KeyError as error:
        raise PolicyError(f"{name} was not written by `noisepilot export`: it has no {error}") from None
    except (ValueError, TypeError) as error:
        raise PolicyError(f"{name} is not a readable policy ({error}): export or copy it again") from None


def read_arrays(content: bytes, name: str) -> tuple[Arrays, str]:
    """The arrays of a `.npz` file of ours, and its metadata as text.

    Raises:
        PolicyError: if the content is none, or cut short.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        return arrays, str(arrays.pop("metadata"))
    except KeyError as error:
        raise PolicyError(f"{name} was not written by `noisepilot export`: it has no {error}") from None
    except Exception as error:  # a broken archive throws errors of zipfile, zlib, struct and numpy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PolicyError(f"{name} is not a readable policy ({reason}): export or copy it again") from None


class Chain:
    """The whole way from physical observations and noise to physical actions."""

    def __init__(self, arrays: Arrays, facts: dict[str, Any]) -> None:
        self.arrays = arrays
        bounds = (facts.get(key) for key in ("clip_data", "clip_mean", "noise_clip"))
        self.clip_data, self.clip_mean, self.noise_clip = (np.inf if bound is None else bound for bound in bounds)
        self.names: list[str] = facts["observations"]
        self.first_tuned: int = facts["first_tuned"]
        self.rows: list[list[float]] = arrays["coefficients"].T.tolist()
        self.tuned = Network(arrays, "tuned", facts)
        self.frozen = Network(arrays, "frozen", facts) if self.first_tuned else self.tuned

    def __call__(self, feeds: Arrays) -> Array:
        """Actions (B, H, A)."""
        parts = [self._normalized(name, feeds["observation." + name]) for name in self.names]
        features, noise = np.concatenate(parts, 1), feeds["noise"]
        x = noise[:, 0].reshape(len(noise), -1)  # (B, HA)
        draws = self._draws(noise)
        tuned = self.tuned.fold(features)
        step = self.frozen.fold(features) if self.first_tuned else tuned
        for k, (p, q, c, d, std) in enumerate(self.rows):
            if k == self.first_tuned:
                step = tuned
            data = _clip(p * x + q * step(k, x), self.clip_data)
            x = c * data + d * x
            if self.clip_mean < np.inf:
                x = _clip(x, self.clip_mean)
            if std > 0:
                x += draws[k]
        if self.clip_mean < np.inf:
            x = _clip(x, self.clip_mean)
        action = x.reshape(len(noise), *noise.shape[2:])
        return self.arrays["action.center"] + action * self.arrays["action.half"]

    def _draws(self, noise: Array) -> Array:
        # What each step adds, (K, B, HA); without noise at the steps nothing reads it.
        batch, draws, horizon, dim = noise.shape
        flat = noise[:, 1:].reshape(batch, draws - 1, horizon * dim).swapaxes(0, 1)
        std = self.arrays["coefficients"][4, : len(flat)].astype(np.float32)
        return std[:, None, None] * _clip(flat, self.noise_clip)

    def _normalized(self, name: str, value: Array) -> Array:
        center, scale = self.arrays[f"observation.{name}.center"], self.arrays[f"observation.{name}.scale"]
        return ((value - center) * scale).reshape(len(value), -1)


class Network:
    """One denoising MLP; `part` names its arrays, `<part>.<layer>.<weight or bias>`."""

    def __init__(self, arrays: Arrays, part: str, facts: dict[str, Any]) -> None:
        self.act = ACTIVATIONS[facts["activation"]]
        self.residual: bool = facts["residual"]
        self.time = arrays[part + ".time"]  # (K, W)
        self.from_x = arrays[part + ".from_x"].T  # (HA, W)
        self.from_condition = arrays[part + ".from_condition"].T
        self.bias = arrays[part + ".bias"]
        self.condition = layers_of(arrays, part + ".condition")
        self.layers = layers_of(arrays, part + ".layers")

    def fold(self, features: Array) -> Callable[[int, Array], Array]:
        """The network for walking a chain: what time and condition add to its first layer comes first."""
        base = self._plain(features, self.condition) @ self.from_condition + self.bias
        known = base + self.time[:, None]  # (K, B, W)
        walk = self._blocks if self.residual else self._plain_after
        return lambda k, x: walk(x @ self.from_x + known[k])

    def _plain(self, h: Array, layers: list[tuple[Array, Array]]) -> Array:
        for i, (weight, bias) in enumerate(layers):
            h = (self.act(h) if i else h) @ weight + bias
        return h

    def _plain_after(self, h: Array) -> Array:
        return self._plain(self.act(h), self.layers)

    def _blocks(self, h: Array) -> Array:
        for i in range(0, len(self.layers) - 1, 2):
            (w1, b1), (w2, b2) = self.layers[i], self.layers[i + 1]
            h += self.act(self.act(h) @ w1 + b1) @ w2 + b2
        weight, bias = self.layers[-1]
        return h @ weight + bias


def layers_of(arrays: Arrays, part: str) -> list[tuple[Array, Array]]:
    """Transposed weights and biases of `<part>.0`, `<part>.1`, ..."""
    count = sum(key.startswith(part + ".") and key.endswith(".bias") for key in arrays)
    return [(arrays[f"{part}.{i}.weight"].T, arrays[f"{part}.{i}.bias"]) for i in range(count)]


def _clip(x: Array, bound: float) -> Array:
    # np.clip spends several times longer on its own arguments at these sizes.
    return np.maximum(np.minimum(x, bound), -bound)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _mish(x: Array) -> Array:
    u = np.exp(np.minimum(x, 20))
    n = u * (u + 2)
    return x * (n / (n + 2))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(np.minimum(-x, 80)))


ACTIVATIONS = {"relu": _relu, "mish": _mish, "gelu": _gelu, "tanh": np.tanh, "silu": _silu}
