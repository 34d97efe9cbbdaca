"""A policy in one file that needs no torch: its graph or arrays, its specification and a parity certificate.

`.onnx` is played by onnxruntime (or anything else that reads ONNX), `.npz` by numpy alone. Inputs are
`observation.<name>` (B, T, D) and `noise` (B, N, H, A), the output is `action` (B, H, A), in physical units.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..config import to_dict
from ..errors import UserError
from ..files import atomic_write
from ..policies.policy import ACTION, Policy
from ..spec import ArraySpec
from .arrays import center_half, chain_arrays, chain_facts, pack
from .graph import Exportable, add_metadata, build_graph
from .parity import certify
from .runtime.policy import Policy as ExportedPolicy
from .runtime.spec import SCHEMA

Metadata = dict[str, Any]


def export(
    policy: Exportable,
    path: str | Path,
    *,
    observations: Mapping[str, Tensor] | None = None,
    quantiles: Mapping[str, Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
) -> Path:
    """Write `path`, after having compared what is written with the policy.

    Args:
        policy: any device and precision; the file is float32.
        path: ends in `.onnx` or `.npz`.
        observations: recorded physical ones for the certificate, name -> (N, T, D); drawn if None.
        quantiles: of recorded observations, name -> `q01` and `q99`, lists of D; they join the specification.
        provenance: where the policy comes from, as JSON values.
        evaluation: what it achieved, as JSON values.

    Raises:
        UserError: if what would be written differs from the policy by more than 1e-4 of the action range, a
            package is missing, or the suffix is unknown; no file is written then.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise UserError(f"cannot export to '{path}': the path must end in {' or '.join(_FORMATS)}")
    policy.normalizer.require_fitted()
    policy = copy.deepcopy(policy).cpu().float().eval()
    metadata = describe(policy) | {
        "provenance": dict(provenance),
        "evaluation": evaluation and dict(evaluation),
    }
    for name, facts in (quantiles or {}).items():
        metadata["observations"][name].update(facts)
    metadata, write, backend = _FORMATS[path.suffix](policy, metadata)
    exported = ExportedPolicy.from_bytes(write(_text(metadata)), path.name)
    metadata["parity"] = certify(policy, exported, observations, backend)
    atomic_write(path, write(_text(metadata)))
    return path


def describe(policy: Exportable) -> Metadata:
    """The specification that travels with the file, as JSON values."""
    spec = policy.spec
    return {
        "schema": SCHEMA,
        "observations": {
            name: _array(array, (spec.n_obs_steps, array.dim)) | _seen(policy, name) for name, array in spec.obs.items()
        },
        "action": _array(spec.action, (spec.horizon, spec.action.dim)) | _seen(policy, ACTION),
        "noise_shape": list(policy.noise_shape),
        "control_hz": spec.control_hz,
        "horizon": spec.horizon,
        "n_action_steps": spec.n_action_steps,
        "n_obs_steps": spec.n_obs_steps,
        "env": spec.env,
        "env_kwargs": dict(spec.env_kwargs),
        "policy": to_dict(policy.config),
    }


Writer = Callable[[str], bytes]
"""metadata -> content of the file"""


def _onnx(policy: Exportable, metadata: Metadata) -> tuple[Metadata, Writer, str]:
    model = build_graph(policy)

    def write(text: str) -> bytes:
        whole = copy.deepcopy(model)
        add_metadata(whole, text)
        return whole.SerializeToString()

    return metadata, write, f"onnxruntime {version('onnxruntime')}"


def _npz(policy: Exportable, metadata: Metadata) -> tuple[Metadata, Writer, str]:
    if not isinstance(policy, Policy):
        raise UserError("a .npz file holds plain MLP policies only: export to a path that ends in .onnx")
    metadata = metadata | {"chain": chain_facts(policy)}
    arrays = chain_arrays(policy)
    return metadata, lambda text: pack(arrays, text), f"numpy {np.__version__}"


_FORMATS = {".onnx": _onnx, ".npz": _npz}


def _array(spec: ArraySpec, shape: tuple[int, int]) -> Metadata:
    return {
        "shape": list(shape),
        "names": list(spec.names),
        "unit": spec.unit,
        "convention": asdict(spec.convention),
        "low": spec.low,
        "high": spec.high,
    }


def _seen(policy: Exportable, name: str) -> Metadata:
    # The range that the normaliser maps to [-1, 1]: with min-max statistics, that of the training data.
    center, half = center_half(policy, name)
    return {"seen_low": (center - half).tolist(), "seen_high": (center + half).tolist()}


def _text(metadata: Metadata) -> str:
    return json.dumps(_strict(metadata), allow_nan=False)


def _strict(value: Any) -> Any:
    # JSON has no infinity: an unbounded limit becomes null.
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
