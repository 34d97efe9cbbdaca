"""What an exported file says of itself.

Shapes: T observations, D elements, N draws, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1


class PolicyError(RuntimeError):
    """The file, or what was handed to the policy, cannot be used; the message is one line."""


@dataclass(frozen=True)
class Spec:
    """What the policy consumes and produces, in physical units."""

    observations: Mapping[str, Mapping[str, Any]]
    """name -> shape (T, D), names, unit, limits `low`, `high`, range in training `seen_low`, `seen_high`, and maybe
    its 1 % and 99 % quantiles `q01`, `q99`"""
    action: Mapping[str, Any]
    """the same with shape (H, A); limits are None where unbounded"""
    noise_shape: tuple[int, int, int]
    """(N, H, A): standard normal draws per decision"""
    control_hz: float
    """actions per second; 0: unknown"""
    horizon: int
    n_action_steps: int
    n_obs_steps: int
    max_prefix: int = 0
    """P: so many of a chunk's first actions may be committed already when it is made"""
    env: str = ""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)


def read_spec(metadata: dict[str, Any], name: str) -> Spec:
    """The specification inside an exported file's metadata.

    Raises:
        PolicyError: if the file is newer than this runtime, or incomplete.
    """
    schema = metadata.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise PolicyError(f"{name} has schema {schema}, this runtime reads up to {SCHEMA}: update the runtime")
    try:
        return Spec(
            observations={
                key: {**value, "shape": _ints(value["shape"])} for key, value in metadata["observations"].items()
            },
            action={**metadata["action"], "shape": _ints(metadata["action"]["shape"])},
            noise_shape=_ints(metadata["noise_shape"]),  # type: ignore[arg-type]
            control_hz=float(metadata["control_hz"]),
            horizon=int(metadata["horizon"]),
            n_action_steps=int(metadata["n_action_steps"]),
            n_obs_steps=int(metadata["n_obs_steps"]),
            max_prefix=int(metadata.get("max_prefix", 0)),
            env=str(metadata["env"]),
            env_kwargs=dict(metadata.get("env_kwargs", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyError(f"{name} has incomplete metadata ({error!r}): export it again") from None


def mismatch(spec: Spec, wanted: Mapping[str, Any], whose: str) -> str | None:
    """The first way in which a policy is not the one that `whose` side expects, as words; None if there is none.

    Args:
        spec: of the policy.
        wanted: `observations` (all that the policy needs, or more), `action` and `control_hz`, each if expected; of
            arrays `shape`, `names`, `unit` and `convention` are compared where both sides state them.
        whose: words for the other side.
    """
    observations = wanted.get("observations", {})
    if observations and (missing := [name for name in spec.observations if name not in observations]):
        return f"it needs observation '{missing[0]}', {whose} are {', '.join(map(repr, observations))}"
    arrays = [
        (f"observation '{name}'", spec.observations[name], observations.get(name, {})) for name in spec.observations
    ]
    for what, ours, theirs in [*arrays, ("action", spec.action, wanted.get("action", {}))]:
        for key in ("shape", "names", "unit", "convention"):
            a, b = _plain(ours.get(key)), _plain(theirs.get(key))
            if a and b and a != b:
                return f"the {key} of {what} is {a!r}, {whose} {b!r}"
    hz = wanted.get("control_hz") or 0
    if spec.control_hz > 0 and hz > 0 and abs(hz - spec.control_hz) > 1e-6 * hz:
        return f"it was made for {spec.control_hz:g} Hz, {whose} {hz:g} Hz"
    return None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
