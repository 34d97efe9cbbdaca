"""What a message to the server may hold, checked against the policy's specification while it is read.

Shapes: B rows, T observations, D elements, N draws, H horizon, A action dim, n committed actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime.remote import OWN
from ..runtime.spec import PolicyError, Spec
from ..runtime.wire import INTEGER, Reader, WireError, unpack_plain

Array = np.ndarray
LARGEST_ANNOUNCEMENT = 2**16
"""bytes"""
SLACK = 2**20
"""bytes of a message beside what the policy needs"""


@dataclass(frozen=True)
class Request:
    """One question."""

    obs: Mapping[str, Array] = field(default_factory=dict)
    """name -> (T, D) or (B, T, D), float32; pictures stay uint8"""
    noise: Array | None = None
    """(N, H, A) or (B, N, H, A); None: the server draws"""
    prefix: Array | None = None
    """(n, A) or (B, n, A); None: nothing is committed"""
    number: int | None = None
    """returned with the answer"""
    expects: Mapping[str, Any] | None = None
    """what the client takes the policy to be; such a message asks for nothing else"""


def largest(spec: Spec, max_rows: int) -> int:
    """Bytes that a message may have."""
    prefix = (spec.max_prefix, spec.action["shape"][1])
    shapes = [*(array["shape"] for array in spec.observations.values()), spec.noise_shape, prefix]
    return SLACK + 8 * max_rows * sum(int(np.prod(shape)) for shape in shapes)


def read_request(frame: bytes, spec: Spec, max_rows: int) -> Request:
    """A message as a request; entries that the policy does not know are skipped.

    Raises:
        WireError: if it cannot be read.
        PolicyError: if an array does not fit the policy, or comes in more rows than the server takes.
    """
    reader, obs, own = Reader(frame), {}, Request()
    for key in reader.entries():
        if key == OWN:
            own = _own(reader, frame, spec, max_rows)
            if own.expects is not None:
                return own
        elif key in spec.observations:
            obs[key] = _fitting(reader.array(key), f"observation '{key}'", spec.observations[key]["shape"], max_rows)
        else:
            reader.skip()
    reader.end()
    return Request(obs, own.noise, own.prefix, own.number)


def _own(reader: Reader, frame: bytes, spec: Spec, max_rows: int) -> Request:
    noise = prefix = number = None
    for key in reader.entries():
        if key == "expects":
            return Request(expects=_expected(frame))
        if key == "id":
            number = reader.take(INTEGER, "number")
        elif key == "noise":
            noise = _fitting(reader.array(key), key, spec.noise_shape, max_rows)
        elif key == "prefix" and spec.max_prefix:
            prefix = _prefix(reader.array(key), spec, max_rows)
        else:
            raise WireError(f"'{OWN}' has no entry {key[:40]!r}")
    return Request(noise=noise, prefix=prefix, number=number)


def _prefix(array: Array, spec: Spec, max_rows: int) -> Array:
    count = array.shape[-2] if array.ndim in (2, 3) else 0
    if count > spec.max_prefix:
        raise PolicyError(f"prefix has {count} actions, the policy takes at most {spec.max_prefix}: replan sooner")
    return _fitting(array, "prefix", (count, spec.action["shape"][1]), max_rows)


def _fitting(array: Array, what: str, shape: tuple[int, ...], max_rows: int) -> Array:
    if array.shape != shape and array.shape[1:] != shape:
        rows = ", ".join(map(str, shape))
        raise PolicyError(f"{what} has shape {array.shape}, expected {shape} or (B, {rows})")
    if array.shape != shape and len(array) > max_rows:
        raise PolicyError(f"{what} has {len(array)} rows, the server takes {max_rows}: see --max-batch")
    if array.dtype == np.uint8:  # a picture; where numbers are meant, the policy reads it as those
        return array
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that
        return array.astype(np.float32)


def _expected(frame: bytes) -> Mapping[str, Any]:
    if len(frame) > LARGEST_ANNOUNCEMENT:
        raise WireError(f"a message with 'expects' has at most {LARGEST_ANNOUNCEMENT} bytes")
    whole = unpack_plain(frame)
    if list(whole) != [OWN] or list(whole[OWN]) != ["expects"]:
        raise WireError(f"a message with 'expects' holds nothing else: {{'{OWN}': {{'expects': {{...}}}}}}")
    expects = whole[OWN]["expects"]
    arrays = (
        [expects.get("action", {}), *_values(expects.get("observations", {}))] if isinstance(expects, dict) else [0]
    )
    hz = expects.get("control_hz", 0) if isinstance(expects, dict) else 0
    if not all(isinstance(array, dict) for array in arrays) or not isinstance(hz, (int, float)):
        raise WireError("'expects' has 'observations' (name -> shape, names, unit), 'action' and 'control_hz'")
    return expects


def _values(mapping: Any) -> list[Any]:
    return list(mapping.values()) if isinstance(mapping, dict) else [mapping]
