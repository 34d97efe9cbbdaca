"""A Core as policies see it: tensors in, tensors out. Only this file and `history.py` import torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..spec import EnvSpec
from .core import Core, State, Step


@runtime_checkable
class VectorEnv(Protocol):
    """N environments whose arrays are tensors: a Core in a `TensorEnv`, or a wrapper of one with other actions.

    A wrapper's action may stand for several of the environment's own, so a Step may hold more entries than the
    action that made it; methods as in `Core`.
    """

    spec: EnvSpec
    num_envs: int

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, Tensor]:
        """Start new episodes in `slots` (all if None), one seed each; returns name -> (len(slots), ...)."""
        ...

    def step(self, action: Tensor) -> Step:
        """Execute a chunk of actions, (N, n, A)."""
        ...

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Everything needed to continue bit-equal: numpy arrays, slot first."""
        ...

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Put slots back into a state of `get_state`; returns their current observations."""
        ...

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot, (height, width, 3) uint8."""
        ...

    def close(self) -> None:
        """Free threads, processes and renderers."""
        ...


class TensorEnv:
    """The `VectorEnv` of policies: a Core whose arrays become tensors on `device`, in their own precision."""

    def __init__(self, core: Core, device: str | torch.device = "cpu") -> None:
        self.core = core
        self.device = torch.device(device)
        self.num_envs = core.num_envs
        self.spec: EnvSpec = replace(core.spec, device=str(self.device))

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, Tensor]:
        """Start new episodes in `slots` (all if None), one seed each; returns name -> (len(slots), ...)."""
        return self._tensors(self.core.reset(seeds, slots, state))

    def step(self, action: Tensor) -> Step:
        """Execute a chunk of physical actions, (N, n, A) of any float type, on any device."""
        return self.core.step(action.detach().cpu().double().numpy()).map(self._tensor)

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Everything needed to continue bit-equal: numpy arrays, slot first."""
        return self.core.get_state(slots)

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Put slots back into a state of `get_state`; returns their current observations."""
        return self._tensors(self.core.set_state(state, slots))

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot, (height, width, 3) uint8."""
        return self.core.render(slot, width, height)

    def close(self) -> None:
        """Free threads, processes and renderers."""
        self.core.close()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: self._tensor(array) for name, array in arrays.items()}
