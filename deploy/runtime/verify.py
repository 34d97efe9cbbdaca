"""The certificate's examples: decisions made in torch and kept in the file, so that any machine can make them again.

Observations and actions are stored. Noise and pictures are drawn anew from a seed, by the generator of numpy whose
numbers never change (`RandomState`), because they would be most of a small file.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .seams import action_range
from .spec import PolicyError, Spec

Array = np.ndarray
MOST = 8
"""examples in a file"""


@dataclass(frozen=True)
class Verification:
    """How far this machine's actions are from those of torch."""

    max_relative_difference: float
    """as a fraction of each action's range; NaN if an action was"""
    tolerance: float
    examples: int
    backend: str
    """what made the actions, with its version"""

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.max_relative_difference <= self.tolerance


def verify(policy: Any) -> Verification:
    """Play a policy on its file's examples, one by one as on a robot.

    Raises:
        PolicyError: if the file has none, or they are damaged.
    """
    obs, noise, actions, tolerance = _examples(policy)
    rows = range(len(actions))
    played = np.stack([policy.act({name: value[i] for name, value in obs.items()}, noise[i]) for i in rows])
    difference = np.abs(played - actions) / action_range(policy.spec.action)
    return Verification(float(difference.max()), tolerance, len(actions), policy.backend)


def _examples(policy: Any) -> tuple[dict[str, Array], Array, Array, float]:
    spec: Spec = policy.spec
    try:
        parity = policy.metadata["parity"]
        tolerance, examples = float(parity["tolerance"]), parity["examples"]
        count, stored = int(examples["count"]), examples["observations"]
        if not 0 < count <= MOST:
            raise ValueError(f"{count} of them")
        noise, obs = draw(spec, count, int(examples["seed"]))
        for name in spec.observations.keys() - obs.keys():
            obs[name] = read(stored[name], (count, *spec.observations[name]["shape"]))
        return obs, noise, read(examples["action"], (count, *spec.action["shape"])), tolerance
    except (KeyError, TypeError):
        raise PolicyError("the policy's file holds no examples to reproduce: export it again") from None
    except ValueError as error:
        raise PolicyError(f"the examples in the policy's file are damaged ({error}): copy it again") from None


def draw(spec: Spec, count: int, seed: int) -> tuple[Array, dict[str, Array]]:
    """Noise (count, N, H, A) and pictures, name -> (count, T, H, W, C), of the examples."""
    # The legacy generator on purpose: numpy promises that its numbers stay.
    state = np.random.RandomState(seed)
    noise = state.standard_normal((count, *spec.noise_shape)).astype(np.float32)
    pictures = {}
    for name, array in spec.observations.items():
        if array.get("dtype") == "uint8":
            shape = (count, *array["shape"])
            pictures[name] = np.frombuffer(state.bytes(prod(shape)), np.uint8).reshape(shape)
    return noise, pictures


def pack(observations: Mapping[str, Array], actions: Array, seed: int) -> dict[str, Any]:
    """The examples as JSON values: float32 in base64."""
    return {
        "count": len(actions),
        "seed": seed,
        "observations": {name: write(value) for name, value in observations.items()},
        "action": write(actions),
    }


def write(array: Array) -> str:
    """Numbers as text, to the bit of a float32."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def read(text: str, shape: tuple[int, ...]) -> Array:
    """What `write` wrote.

    Raises:
        ValueError: if it does not fill this shape.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(shape)
