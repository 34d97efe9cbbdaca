"""What evaluation, export and the wrappers of a frozen policy need of anything that acts.

B batch, T observations, K denoising steps, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..spec import PolicySpec
from .normalizer import Normalizer
from .policy import Context, PolicyConfig


@runtime_checkable
class Actor(Protocol):
    """What evaluation needs of a policy."""

    @property
    def spec(self) -> PolicySpec:
        """Shapes, horizon and executed steps."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(K+1, H, A): Gaussian numbers that one decision consumes."""
        ...

    def act(
        self, obs: Mapping[str, Tensor], noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Observations name -> (B, T, ...) and noise (B, K+1, H, A) to actions (B, H, A), physical units."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An actor that remembers, in every row, what it is executing."""

    def reset(self, rows: list[int] | None) -> None:
        """New episodes start in these rows; None: in all."""
        ...

    def due(self) -> Tensor | None:
        """(B,) bool: rows whose next action consumes noise; None: all."""
        ...


@runtime_checkable
class Base(Actor, Protocol):
    """What can be steered or corrected: an actor whose scales are known. A `Policy`, or a black box."""

    @property
    def normalizer(self) -> Normalizer:
        """Of observations and actions."""
        ...

    @property
    def feature_dim(self) -> int:
        """F: length of the encoded observation."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Its precision."""
        ...

    def encode(self, obs: Mapping[str, Tensor]) -> Context:
        """Physical observations, name -> (B, T, ...), to features."""
        ...


@runtime_checkable
class Outside(Protocol):
    """A base from outside this package, as a saved actor names it: a dataclass."""

    def open(self, spec: PolicySpec) -> Base:
        """The base itself, for the environment of `spec`."""
        ...


def config_of(base: Base) -> PolicyConfig | Outside | None:
    """What finds a base again when an actor made of it is loaded; None: nothing does."""
    config = getattr(base, "config", None)
    return config if isinstance(config, (PolicyConfig, Outside)) else None
