"""What an off-policy algorithm is to the loop that runs it, and the numbers of that loop: nothing here computes.

The loop asks `act` for a decision in every slot, stores what came of it, and calls `update` with samples of the
replay. Shapes: N slots, n executed actions, A action dim, T observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..envs.vector import VectorEnv
from ..errors import at_least, fractions, positive
from ..policies.actor import Actor
from ..spec import EnvSpec
from .replay import Experience


@dataclass(frozen=True, kw_only=True)
class OffPolicySettings:
    """Hyperparameters that the loop reads; a method inherits them."""

    batch: int = 256
    """transitions per gradient step"""
    replay: int = 1_000_000
    """transitions kept"""
    warmup: int = 1_000
    """decisions, over all slots, before the first gradient step"""
    utd: float = 1.0
    """gradient steps per decision of one slot"""
    train_every: int = 1
    """vector steps between blocks of gradient steps"""
    demo_share: float = 0.0
    """share of each batch drawn from demonstrations, where there are any (RLPD)"""

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "replay", "train_every")
        at_least(0, self, "warmup")
        positive(self, "utd")
        fractions(self, "demo_share")


@runtime_checkable
class OffPolicyState(Protocol):
    """What an algorithm keeps between updates, and how it is saved."""

    step: int
    """gradient steps done"""

    @property
    def actor(self) -> Actor:
        """The module to evaluate and save; it acts in the environment as it is, not in the wrapped one."""
        ...

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        ...

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What has moments."""
        ...

    def extra(self) -> dict[str, Any]:
        """The rest of the state: numbers and small tensors."""
        ...

    def load_extra(self, extra: dict[str, Any]) -> None:
        """Restore what `extra` returned."""
        ...


@runtime_checkable
class OffPolicy(Protocol):
    """A frozen dataclass of hyperparameters with these fields and methods."""

    @property
    def batch(self) -> int:
        """Transitions per gradient step."""
        ...

    @property
    def replay(self) -> int:
        """Transitions that the replay holds."""
        ...

    @property
    def warmup(self) -> int:
        """Decisions, over all slots, before the first gradient step."""
        ...

    @property
    def utd(self) -> float:
        """Gradient steps per decision (update-to-data ratio); every slot's decision counts."""
        ...

    @property
    def train_every(self) -> int:
        """Vector steps between blocks of gradient steps."""
        ...

    @property
    def demo_share(self) -> float:
        """Share of each batch that is drawn from demonstrations, where there are any."""
        ...

    def wrap(self, base: Actor | None, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment that the algorithm acts in: `env` itself, or one with `base` inside."""
        ...

    def init(self, base: Actor | None, spec: EnvSpec) -> Any:
        """A fresh `OffPolicyState`; `spec` is the wrapped environment's."""
        ...

    def act(
        self, state: Any, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Explore: (N, n, A) actions for the wrapped environment, in its units, and extras.

        `obs` are the wrapped environment's, name -> (N, T, ...). `extras["action"]` (N, n, A) is what the replay
        stores as the action, normalised; further extras are stored beside it.
        """
        ...

    def update(self, state: Any, batch: Experience, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step; returns metrics as tensors, for reading a number would wait for the device."""
        ...
