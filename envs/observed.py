"""An environment of which only some observations are shown, so that nothing keeps what no policy looks at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..spec import EnvSpec
from .core import Core, State, Step


class Observed:
    """A Core with the observations `names` alone; otherwise the one inside."""

    def __init__(self, core: Core, names: Collection[str]) -> None:
        self.core, self.names, self.num_envs = core, names, core.num_envs
        self.spec: EnvSpec = replace(core.spec, obs=self._shown(core.spec.obs))

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Start episodes."""
        return self._shown(self.core.reset(seeds, slots, state))

    def step(self, action: np.ndarray) -> Step:
        """Execute a chunk."""
        step = self.core.step(action)
        return replace(step, obs=self._shown(step.obs))

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Of the one inside."""
        return self.core.get_state(slots)

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Put slots back."""
        return self._shown(self.core.set_state(state, slots))

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """Of the one inside."""
        return self.core.render(slot, width, height)

    def close(self) -> None:
        """Free what the one inside holds."""
        self.core.close()

    def _shown(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in obs.items() if name in self.names}
