"""An adapter on top of a file that stays as it is: `policy.onnx`, and in a file of its own `policy.overlay`.

    noise     the base's noise is `basis` w,  w = bound tanh(mean(o) + std(o) eps)         (DSRL)
    residual  every action b of the base's chunk is sent as b + half scale u(o, b)         (ResiP, Policy Decorator)

The file is a `.npz` of one small network, the base's scales and the SHA-256 of the base's file; nothing is pickled.
Shapes: B batch, T observations, F features, N draws, H horizon, A action dim, R rows of coefficients.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .chain import ACTIVATIONS, Array, Arrays, layers_of, read_arrays
from .policy import Policy, read_bytes
from .spec import PolicyError

SCHEMA = 1
KINDS = ("noise", "residual")
EPSILON = 1e-5
"""of the layers' normalisation"""


class Overlay:
    """An adapter that was read; `on` puts it on its base. `digest` is the SHA-256 of its file.

    Raises:
        PolicyError: if the content is no overlay, or newer than this runtime.
    """

    def __init__(self, content: bytes, name: str) -> None:
        if content[:2] != b"PK":
            raise PolicyError(f"{name} is no overlay: `noisepilot export ADAPTER --out policy.overlay` writes one")
        arrays, text = read_arrays(content, name)
        facts = _facts(text, name)
        self.name, self.metadata, self.digest = name, facts, hashlib.sha256(content).hexdigest()
        try:
            self.kind, self.base = str(facts["overlay"]), str(facts["base"])
            self.observations = [str(key) for key in facts["observations"]]
            arrays = {key: np.asarray(value, np.float32) for key, value in arrays.items()}
            self.network = Perceptron(arrays, facts)
            self.arrays = {key: arrays[key] for key in self._wanted()}
            self.facts: tuple[Any, ...] = _noise_facts(facts) if self.kind == "noise" else _residual_facts(facts)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise PolicyError(f"{name} is incomplete ({error!r}): export it again") from None
        if not all(np.isfinite(value).all() for value in (*self.arrays.values(), *self.network.numbers())):
            raise PolicyError(f"{name} holds weights that are not finite: train or export it again")

    @classmethod
    def load(cls, path: str | Path) -> Overlay:
        """Open a `.overlay` file written by `noisepilot export`.

        Raises:
            PolicyError: if it is missing, corrupt, something else, or newer than this runtime.
        """
        return cls(read_bytes(path), str(path))

    def on(self, base: Policy) -> Policy:
        """The base with this adapter on top, as one policy.

        Its `digest` is that of both digests together; its metadata are the base's, with this file's under `overlay`.

        Raises:
            PolicyError: if it was trained on top of another file.
        """
        if base.digest != self.base:
            raise PolicyError(
                f"{self.name} was trained on another file (SHA-256 {self.base[:12]}..., here {base.digest[:12] or '?'}"
                "...): give that one, or leave the overlay out"
            )
        facts = {**self.metadata, "digest": self.digest}
        digest = hashlib.sha256(f"{base.digest} {self.digest}".encode()).hexdigest()
        built = _Steered if self.kind == "noise" else _Corrected
        try:
            return built(self, base, {**base.metadata, "overlay": facts}, digest)
        except (KeyError, ValueError) as error:
            raise PolicyError(f"{self.name} does not fit its base ({error}): export it again") from None

    def features(self, feeds: Mapping[str, Array]) -> Array:
        """(B, F): normalised and flat, of `observation.<name>` (B, T, ...)."""
        parts = []
        for name in self.observations:
            center, scale = (self.arrays[f"observation.{name}.{what}"] for what in ("center", "scale"))
            parts.append(
                ((feeds["observation." + name] - center) * scale).reshape(len(feeds["observation." + name]), -1)
            )
        return np.concatenate(parts, 1)

    def require(self, base: Policy, inputs: int, outputs: int) -> None:
        """Raises ValueError for a network of other sizes than (F + inputs, outputs)."""
        shapes = [base.spec.observations[name]["shape"] for name in self.observations]
        for key, value in self.arrays.items():
            name = key[len("observation.") : key.rindex(".")] if key.startswith("observation.") else ""
            known = base.spec.observations[name] if name else base.spec.action
            if key != "basis" and value.shape != tuple(known["shape"][1:]):
                raise ValueError(f"{key} has shape {value.shape}")
        wanted = (sum(math.prod(shape) for shape in shapes) + inputs, outputs)
        if self.network.sizes != wanted:
            raise ValueError(f"its network maps {self.network.sizes[0]} to {self.network.sizes[1]}, not {wanted}")

    def _wanted(self) -> list[str]:
        own = ["basis"] if self.kind == "noise" else ["action.center", "action.scale", "action.half"]
        return own + [f"observation.{name}.{what}" for name in self.observations for what in ("center", "scale")]


class Perceptron:
    """Plain layers with activations between, perhaps each normalised before or after its activation."""

    def __init__(self, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        self.act, self.norm = ACTIVATIONS[facts["activation"]], str(facts["layer_norm"])
        self.layers, self.norms = layers_of(arrays, "layers"), layers_of(arrays, "norms")
        self.sizes = (self.layers[0][0].shape[0], self.layers[-1][0].shape[1])
        widths = [(self.sizes[0],), *(bias.shape for _, bias in self.layers)]
        fits = all(w.shape == before + after for (w, _), before, after in zip(self.layers, widths, widths[1:]))
        fits &= [w.shape for w, _ in self.norms] == [b.shape for _, b in self.norms]
        if not fits or (self.norms and [w.shape for w, _ in self.norms] != widths[1:-1]):
            raise ValueError("layers that do not follow each other")
        if self.norm not in ("none", "before", "after") or (self.norm != "none") != bool(self.norms):
            raise ValueError(f"layer norm {self.norm} with {len(self.norms)} of them")

    def numbers(self) -> list[Array]:
        """All weights."""
        return [value for layer in (*self.layers, *self.norms) for value in layer]

    def __call__(self, h: Array) -> Array:
        """(B, inputs) to (B, outputs)."""
        *hidden, (last, bias) = self.layers
        for i, (weight, shift) in enumerate(hidden):
            h = h @ weight + shift
            if self.norm == "before":
                h = _normalized(h, *self.norms[i])
            h = self.act(h)
            if self.norm == "after":
                h = _normalized(h, *self.norms[i])
        return h @ last + bias


class _Steered(Policy):
    """The base, its noise chosen by a network; noise (1, R, A) is what the choice is drawn with, zeros: the mode."""

    def __init__(self, overlay: Overlay, base: Policy, metadata: dict[str, Any], digest: str) -> None:
        draws, horizon, dim = base.spec.noise_shape
        basis = overlay.arrays["basis"]  # (H, R)
        if draws != 1 or basis.ndim != 2 or len(basis) != horizon:
            raise ValueError(f"noise of {horizon} steps drawn {draws} times, a basis of shape {basis.shape}")
        overlay.require(base, 0, 2 * basis.shape[1] * dim)
        shape = [1, basis.shape[1], dim]
        super().__init__(self._play, {**metadata, "noise_shape": shape}, overlay.name, digest)
        self.overlay, self.base, self.basis = overlay, base, basis

    def _play(self, feeds: dict[str, Array]) -> Array:
        bound, sample, low, high = self.overlay.facts
        u, log_std = np.split(self.overlay.network(self.overlay.features(feeds)), 2, axis=1)
        eps = feeds["noise"]
        if sample:
            u = u + np.exp(np.clip(log_std, low, high)) * eps.reshape(len(eps), -1)
        w = bound * np.tanh(u).reshape(eps.shape)  # (B, 1, R, A)
        return self.base.run({**feeds, "noise": self.basis @ w})


class _Corrected(Policy):
    """`act` is the base's plan; `correct` makes what is sent of each of its actions."""

    corrects = True

    def __init__(self, overlay: Overlay, base: Policy, metadata: dict[str, Any], digest: str) -> None:
        dim = base.spec.action["shape"][1]
        overlay.require(base, dim, dim)
        super().__init__(base.run, metadata, overlay.name, digest)
        self.overlay, self.base, self.dim = overlay, base, dim

    def correct(self, obs: Mapping[str, Any], action: Any) -> Array:
        """Physical (A,), or (B, A) for batches of both; one that is not finite is left so.

        Raises:
            PolicyError: for an observation that is missing, misshapen or not finite, or another shape of the action.
        """
        planned = np.asarray(action, np.float32)
        names = self.overlay.observations
        feeds = {"observation." + name: self.observation(name, obs) for name in names}
        batched = planned.ndim == 2
        if not batched:
            feeds, planned = {name: value[None] for name, value in feeds.items()}, planned[None]
        for name in names:
            if feeds["observation." + name].shape != (len(planned), *self.spec.observations[name]["shape"]):
                raise PolicyError(f"observation '{name}' and the action differ in batch size")
        if planned.ndim != 2 or planned.shape[1] != self.dim:
            raise PolicyError(f"the action has shape {np.shape(action)}, expected ({self.dim},)")
        sent = planned + self._shift(feeds, planned)
        return sent if batched else sent[0]

    def _shift(self, feeds: Mapping[str, Array], planned: Array) -> Array:
        scale, clip, squashed = self.overlay.facts
        arrays, features = self.overlay.arrays, self.overlay.features(feeds)
        if clip is not None:
            features = np.clip(features, -clip, clip)
        base_action = (planned - arrays["action.center"]) * arrays["action.scale"]
        u = self.overlay.network(np.concatenate([features, base_action], 1))
        return scale * (np.tanh(u) if squashed else u) * arrays["action.half"]


def _facts(text: str, name: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:
        raise PolicyError(f"{name} has metadata that is not JSON: export it again") from None
    if not isinstance(facts, dict) or "overlay" not in facts:
        raise PolicyError(f"{name} is a policy of its own and no overlay: leave it out, or play it alone")
    schema = facts.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA or facts["overlay"] not in KINDS:
        what = f"schema {schema}" if facts["overlay"] in KINDS else f"kind {facts['overlay']!r}"
        raise PolicyError(f"{name} has {what}, this runtime reads overlays up to schema {SCHEMA}: update the runtime")
    return facts


def _noise_facts(facts: Mapping[str, Any]) -> tuple[float, bool, float, float]:
    low, high = facts["log_std_range"]
    return float(facts["bound"]), bool(facts["sample"]), float(low), float(high)


def _residual_facts(facts: Mapping[str, Any]) -> tuple[float, float | None, bool]:
    clip = facts["obs_clip"]
    return float(facts["scale"]), None if clip is None else float(clip), bool(facts["squashed"])


def _normalized(h: Array, weight: Array, bias: Array) -> Array:
    centered = h - h.mean(1, keepdims=True)
    return centered / np.sqrt((centered * centered).mean(1, keepdims=True) + EPSILON) * weight + bias
