"""A Core as policies see it: tensors in, tensors out. The only file of this folder that imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..spec import EnvSpec
from .core import Core, State, Step


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
