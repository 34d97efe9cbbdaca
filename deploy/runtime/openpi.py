"""What an openpi server is asked: its observations have no time axis and keep their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .spec import PolicyError, Spec
from .wire import DTYPES


def question(spec: Spec, obs: Mapping[str, Any]) -> dict[str, Any]:
    """The message for one observation, name -> (1, ...) or (...); entries that `spec` does not know pass as they are.

    Raises:
        PolicyError: for an observation of the spec that is missing, misshapen or not finite.
    """
    if missing := [name for name in spec.observations if name not in obs]:
        raise PolicyError(f"observation '{missing[0]}' is missing: the policy expects {list(spec.observations)}")
    return {name: _plain(name, value, spec) if name in spec.observations else value for name, value in obs.items()}


def _plain(name: str, value: Any, spec: Spec) -> np.ndarray:
    array, shape = np.asarray(value), tuple(spec.observations[name]["shape"])
    if array.dtype.str not in DTYPES:
        raise PolicyError(f"observation '{name}' is not an array of numbers: expected shape {shape}")
    if shape[:1] != (1,) or array.shape not in (shape, shape[1:]):
        raise PolicyError(f"observation '{name}' has shape {array.shape}, expected {shape} with one time: openpi's")
    if not np.isfinite(array).all():
        raise PolicyError(f"observation '{name}' is not finite")
    return array.reshape(shape[1:])
