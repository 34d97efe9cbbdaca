"""The numpy side of an environment: what a suite's adapter implements, and the Step it returns.

N slots step together, n actions per call. Nothing here imports torch, so a robot-side loop can use it;
`vector.py` presents the same to policies as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..spec import EnvSpec

Obs = Mapping[str, np.ndarray]
State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """What one chunk of n actions did to N slots; arrays are numpy or torch alike.

    A slot that terminates or is truncated inside the chunk does not move further: later entries have `valid`
    False, reward and signals 0, both flags False, and repeat its final observation. The same holds for a slot
    that ended earlier and was not reset: it idles with `valid` False throughout.

    An episode that was lost, because the process that ran it died, is `void`: truncated without a valid action. It
    counts for nothing; learning may take it as cut off where it was last seen.
    """

    obs: Mapping[str, Any]
    """name -> (N, n, ...): the observation after each action"""
    reward: Any
    """(N, n) float"""
    terminated: Any
    """(N, n) bool"""
    truncated: Any
    """(N, n) bool"""
    valid: Any
    """(N, n) bool: the action was executed"""
    signals: Mapping[str, Any]
    """name -> (N, n) float: `success`, costs; what `EnvSpec.signals` lists"""

    @property
    def final_obs(self) -> dict[str, Any]:
        """By name (N, ...): observation after the last executed action (the true final one of an episode)."""
        return {name: value[:, -1] for name, value in self.obs.items()}

    @property
    def ended(self) -> Any:
        """(N,) bool: the episode ended inside this chunk."""
        return (self.terminated | self.truncated).any(1)

    @property
    def void(self) -> Any:
        """(N,) bool: the episode was lost before this chunk."""
        return (self.truncated & ~self.valid).any(1)

    def map(self, fn: Callable[[Any], Any]) -> Step:
        """Apply `fn` to every array."""
        return Step(
            obs={k: fn(v) for k, v in self.obs.items()},
            reward=fn(self.reward),
            terminated=fn(self.terminated),
            truncated=fn(self.truncated),
            valid=fn(self.valid),
            signals={k: fn(v) for k, v in self.signals.items()},
        )


@runtime_checkable
class Core(Protocol):
    """N environments that step whole chunks; resets are explicit, one seed per slot."""

    spec: EnvSpec
    num_envs: int

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Start new episodes in `slots` (all if None), one seed each; `state` overrides the drawn start.

        Returns name -> (len(slots), ...) first observations.
        """
        ...

    def step(self, action: np.ndarray) -> Step:
        """Execute n actions of physical units per slot; action has shape (N, n, A)."""
        ...

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Everything needed to continue bit-equal, arrays with the slot first."""
        ...

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Put slots back into a state of `get_state`; returns their present observations, name -> (S, ..)."""
        ...

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot, (height, width, 3) uint8."""
        ...

    def close(self) -> None:
        """Free threads, processes and renderers."""
        ...
