"""A policy in one file that needs no torch: its graph or arrays, its specification and a parity certificate.

`.onnx` is played by onnxruntime (or anything else that reads ONNX), `.npz` by numpy alone. Inputs are
`observation.<name>` (B, T, D), bytes (B, T, H, W, C) for pictures, and `noise` (B, N, H, A), the output is `action`
(B, H, A), in physical units. `.c` is source of a program that does the same for one observation, `.pt2` is such a
program, compiled for this machine and torch.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import to_dict
from ..errors import UserError
from ..files import atomic_write
from ..policies.policy import ACTION, Policy
from ..resize import Size
from ..spec import ArraySpec
from . import compiled, native
from .arrays import center_half, chain_arrays, chain_facts, pack
from .c_source import c_source
from .cameras import Cameras
from .graph import Exportable, add_metadata, build_graph
from .parity import certify
from .rounding import Precision, rounded, store
from .runtime.policy import Policy as ExportedPolicy
from .runtime.spec import SCHEMA

Metadata = dict[str, Any]
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    ".onnx": ("float32", "float16", "bfloat16", "int8"),
    ".npz": ("float32",),
    ".c": ("float32", "bfloat16"),
    ".pt2": ("float32",),
}
"""of the weights, by suffix"""


def export(
    policy: Exportable,
    path: str | Path,
    *,
    observations: Mapping[str, Tensor] | None = None,
    cameras: Mapping[str, Size] | None = None,
    quantiles: Mapping[str, Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    history: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
) -> Path:
    """Write `path`, after having compared what is written with the policy.

    Args:
        policy: any device and precision; the file computes in float32.
        path: ends in `.onnx`, `.npz`, `.c` or `.pt2`.
        observations: recorded physical ones for the certificate, name -> (N, T, ...); drawn if None, and where
            `cameras` gives pictures of another size.
        cameras: (height, width) of what the robot's cameras give, by name, where the file shall resize it.
        quantiles: of recorded observations, name -> `q01` and `q99`, lists of D; they join the specification.
        provenance: where the policy comes from, as JSON values.
        evaluation: what it achieved, as JSON values.
        history: how it came to be, as JSON values: `licence`, `training`, `parent`.
        precision: of the weights, see PRECISIONS; products stay float32. The certificate then compares with the
            policy of rounded weights, and says how far that is from the policy.

    Raises:
        UserError: if what would be written differs from the policy by more than 1e-4 of the action range, a
            package or the C compiler is missing, or the suffix is unknown; no file is written then.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise UserError(f"cannot export to '{path}': the path must end in {' or '.join(_FORMATS)}")
    if precision not in PRECISIONS[path.suffix]:
        others = " or ".join(suffix for suffix, known in PRECISIONS.items() if precision in known)
        raise UserError(
            f"a {path.suffix} file has weights in {' or '.join(PRECISIONS[path.suffix])}: "
            f"export to a path that ends in {others} for {precision}"
        )
    policy.normalizer.require_fitted()
    policy = copy.deepcopy(policy).cpu().float().eval()
    seen = Cameras(policy.spec, cameras or {})
    metadata = describe(policy, seen) | {
        "precision": precision,
        "provenance": dict(provenance),
        "evaluation": evaluation and dict(evaluation),
        **(history or {}),
    }
    for name, facts in (quantiles or {}).items():
        metadata["observations"][name].update(facts)
    form = _FORMATS[path.suffix](policy, seen, metadata, precision)
    exported = form.play(form.write(_text(form.metadata)), path.name)
    held = policy if form.policy is None else form.policy
    unrounded = None if form.policy is None else policy
    parity = certify(held, seen, exported, observations, unrounded)
    atomic_write(path, form.write(_text(form.metadata | {"parity": parity})))
    return path


def describe(policy: Exportable, cameras: Cameras) -> Metadata:
    """The specification that travels with the file, as JSON values."""
    spec = policy.spec
    return _strict(
        {
            "schema": SCHEMA,
            "observations": {
                name: _array(array, (spec.n_obs_steps, *array.shape))
                | ({"dtype": "uint8"} if name in cameras.pictures else _seen(policy, name))
                for name, array in cameras.obs.items()
            },
            "action": _array(spec.action, (spec.horizon, spec.action.dim)) | _seen(policy, ACTION),
            "noise_shape": list(policy.noise_shape),
            "control_hz": spec.control_hz,
            "horizon": spec.horizon,
            "n_action_steps": spec.n_action_steps,
            "n_obs_steps": spec.n_obs_steps,
            "max_prefix": spec.max_prefix,
            "env": spec.env,
            "env_kwargs": dict(spec.env_kwargs),
            "policy": to_dict(policy.config),
        }
    )


@dataclass(frozen=True)
class _Form:
    """A policy about to become a file."""

    metadata: Metadata
    write: Callable[[str], bytes]
    """metadata as text -> content of the file"""
    play: Callable[[bytes, str], ExportedPolicy] = ExportedPolicy.from_bytes
    policy: Exportable | None = None
    """what the file holds, where that is not the policy: the one of rounded weights"""


def _onnx(policy: Exportable, cameras: Cameras, metadata: Metadata, precision: Precision) -> _Form:
    held = None if precision == "float32" else rounded(policy, precision)
    model = build_graph(held or policy, cameras)
    if held is not None:
        store(model, policy, precision)

    def write(text: str) -> bytes:
        whole = copy.deepcopy(model)
        add_metadata(whole, text)
        return whole.SerializeToString()

    return _Form(metadata, write, policy=held)


def _npz(policy: Exportable, _cameras: Cameras, metadata: Metadata, _: Precision) -> _Form:
    policy = _plain(policy, ".npz")
    metadata, arrays = metadata | {"chain": chain_facts(policy)}, chain_arrays(policy)
    return _Form(metadata, lambda text: pack(arrays, text))


def _c(policy: Exportable, _cameras: Cameras, metadata: Metadata, precision: Precision) -> _Form:
    policy = _plain(policy, ".c")
    metadata = metadata | {"chain": chain_facts(policy) | {"weights": precision}}
    held = None if precision == "float32" else rounded(policy, precision)
    compiled.find_compiler()
    arrays = chain_arrays(held or policy)
    return _Form(metadata, lambda text: c_source(arrays, text), lambda source, _: compiled.load(source), held)


def _pt2(policy: Exportable, cameras: Cameras, metadata: Metadata, _: Precision) -> _Form:
    archive = native.compile_policy(policy, cameras)
    return _Form(metadata, lambda text: native.with_metadata(archive, text), native.from_bytes)


_FORMATS = {".onnx": _onnx, ".npz": _npz, ".c": _c, native.SUFFIX: _pt2}


def _plain(policy: Exportable, suffix: str) -> Policy:
    if not isinstance(policy, Policy):
        raise UserError(f"a {suffix} file holds plain MLP policies only: export to a path that ends in .onnx")
    return policy


def _array(spec: ArraySpec, shape: tuple[int, ...]) -> Metadata:
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
