"""An adapter in a file of its own, to be played on top of the exported file that it was trained on.

A steered policy's network, or a correction's, with its base's scales: `runtime/overlay.py` says what becomes of them.
Shapes: B batch, H horizon, A action dim, R rows of coefficients.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..files import atomic_write
from ..policies.gaussian import GaussianMLP
from ..policies.policy import ACTION, Policy
from ..policies.residual import Residual
from ..policies.steered import Steered
from ..policies.storage import SavedActor
from ..spec import split_pictures
from .arrays import center_half, inverse, pack
from .cameras import Cameras
from .parity import certify
from .runtime.overlay import SCHEMA, Overlay
from .runtime.policy import Policy as Player

SUFFIX = ".overlay"
Adapter = Steered | Residual
Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]


def export_overlay(
    adapter: Adapter,
    path: str | Path,
    base: Player,
    *,
    observations: Mapping[str, Tensor] | None = None,
    provenance: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    history: Mapping[str, Any] | None = None,
) -> Path:
    """Write `path`, after having compared what is written, on top of its base's file, with the adapter in torch.

    Args:
        adapter: any device and precision; the file computes in float32.
        path: ends in `.overlay`.
        base: the exported file that it was trained on, or one of the policy that it was trained on.
        observations: recorded physical ones for the certificate, name -> (N, T, ...); drawn if None.
        provenance: where the adapter comes from, as JSON values.
        evaluation: what it achieved, as JSON values.
        history: how it came to be, as JSON values: `licence`, `training`, `parent`.

    Raises:
        UserError: if both differ by more than 1e-4 of the action range, the base is another one or draws noise where
            the adapter needs none, or the adapter sees by the base's encoder; no file is written then.
    """
    _require_base(adapter, base)
    adapter = copy.deepcopy(adapter).cpu().float().eval()
    arrays, facts = _noise(adapter) if isinstance(adapter, Steered) else _residual(adapter)
    _, flat = split_pictures(adapter.spec.obs)
    for name in flat:
        center, half = center_half(adapter, name)
        arrays |= {f"observation.{name}.center": center, f"observation.{name}.scale": inverse(half)}
    facts |= {"schema": SCHEMA, "base": base.digest, "observations": list(flat)}
    facts |= {"provenance": dict(provenance), "evaluation": evaluation and dict(evaluation)}
    facts |= dict(history or {})
    played = Overlay(pack(arrays, json.dumps(facts)), Path(path).name).on(base)
    sides = (adapter, played) if isinstance(adapter, Steered) else (_First(adapter), _FirstPlayed(played))
    seen = Cameras(adapter.spec)
    parity = certify(sides[0], seen, sides[1], observations)
    atomic_write(path, pack(arrays, json.dumps(facts | {"parity": parity}, allow_nan=False)))
    return Path(path)


def adapter_of(actor: SavedActor, name: object) -> Adapter:
    """The actor, if it is an adapter.

    Raises:
        UserError: for another kind.
    """
    if isinstance(actor, Adapter):
        return actor
    raise UserError(
        f"{name} holds a {type(actor).__name__} and no adapter: export it to a path that ends in .onnx, "
        "or train one on top of it (finetune --algo dsrl-na, dsrl-sac, residual or resip)"
    )


class _First:
    """A correction's answer to the first step of a chunk; what follows differs in nothing but the numbers."""

    def __init__(self, residual: Residual) -> None:
        self.residual = residual
        self.spec, self.normalizer, self.noise = residual.spec, residual.normalizer, residual.noise

    def act(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        self.residual.reset()
        return self.residual.act(obs, noise)


class _FirstPlayed:
    def __init__(self, player: Player) -> None:
        self.player, self.backend = player, player.backend

    def act(self, obs: Mapping[str, Any], noise: Any, *, prefix: Any = None) -> np.ndarray:
        return self.player.correct(obs, self.player.act(obs, noise, prefix=prefix)[0])[None]


def _require_base(adapter: Adapter, base: Player) -> None:
    inside, config = adapter.base, adapter.config.base
    if isinstance(inside, Policy) and inside.network.encoder is not None:
        raise UserError("an adapter that sees by its base's encoder cannot leave it: export the whole to .onnx")
    known = getattr(config, "digest", base.digest)
    if known != base.digest or not base.digest:
        raise UserError(
            f"the adapter was trained on another file (SHA-256 {known[:12]}..., not {base.digest[:12]}...): "
            "give that one with --base"
        )
    if tuple(base.spec.noise_shape) != tuple(inside.noise_shape):
        raise UserError(
            f"the base's file draws noise {base.spec.noise_shape}, the adapter's base {tuple(inside.noise_shape)}: "
            "export the same policy, with --eta 0 for dsrl-na and dsrl-sac"
        )


def _noise(adapter: Steered) -> tuple[Arrays, Facts]:
    steer, space = adapter.config.steer, adapter.config.space
    _, horizon, dim = adapter.base.noise_shape
    rows = space.rows(horizon)
    # What each coefficient of one action element adds to the noise of every step.
    unit = torch.eye(rows)[:, :, None].expand(-1, -1, dim).flatten(1)
    arrays = _layers(adapter.network.trunk, None)
    arrays["basis"] = space.expand(unit, horizon)[:, 0, :, 0].t().contiguous().numpy()
    facts = {"overlay": "noise", "bound": space.bound, "sample": adapter.config.sample}
    return arrays, facts | _shape_of(steer) | {"log_std_range": list(steer.log_std_range)}


def _residual(adapter: Residual) -> tuple[Arrays, Facts]:
    network, dim = adapter.config.network, adapter.base.spec.action.dim
    squashed = isinstance(network, GaussianMLP)
    arrays = _layers(adapter.network.trunk, dim)  # the mean alone
    center, half = center_half(adapter, ACTION)
    arrays |= {"action.center": center, "action.half": half, "action.scale": inverse(half)}
    facts = {"overlay": "residual", "scale": adapter.config.scale, "obs_clip": adapter.config.obs_clip}
    return arrays, facts | {"squashed": squashed, **_shape_of(network)}


def _shape_of(network: Any) -> Facts:
    return {"activation": network.activation, "layer_norm": getattr(network, "layer_norm", "none")}


@torch.no_grad()
def _layers(trunk: nn.Module, outputs: int | None) -> Arrays:
    """Weights as `runtime/chain.py` reads layers; of the last one the first `outputs` rows."""
    linear = [m for m in trunk.modules() if isinstance(m, nn.Linear)]
    arrays: Arrays = {}
    for i, layer in enumerate(linear):
        rows = outputs if layer is linear[-1] else None
        bias = layer.bias if layer.bias is not None else torch.zeros(layer.out_features)
        arrays |= {f"layers.{i}.weight": layer.weight[:rows].numpy(), f"layers.{i}.bias": bias[:rows].numpy()}
    for i, norm in enumerate(m for m in trunk.modules() if isinstance(m, nn.LayerNorm)):
        arrays |= {f"norms.{i}.weight": norm.weight.numpy(), f"norms.{i}.bias": norm.bias.numpy()}
    return arrays
