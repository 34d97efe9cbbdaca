"""What environments with a frozen policy inside have in common: the policy's history, and passing the rest on.

Shapes: N slots, S some of them, T observations that the policy sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..envs.core import State
from ..envs.history import History
from ..envs.vector import VectorEnv
from ..errors import UserError
from ..policies.actor import Base, Stateful
from ..spec import EnvSpec

OWN = "frozen_base."
"""prefix of the wrapper's part of a state"""


class FrozenBase:
    """A vector environment whose actions are carried out by `base`, which is never trained."""

    def __init__(self, env: VectorEnv, base: Base, spec: EnvSpec) -> None:
        if isinstance(base, Stateful):
            raise UserError(f"a {type(base).__name__} remembers what it executes: give the policy inside it as base")
        base.spec.check_env(env.spec)
        self.env, self.base, self.spec = env, base, spec
        self.num_envs = env.num_envs
        self.history = History(base.spec.n_obs_steps)

    @property
    def device(self) -> torch.device:
        """Where observations lie."""
        return torch.device(self.spec.device)

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Everything needed to continue bit-equal, of the environment and of the policy inside."""
        chosen = self._select(slots)
        return self.env.get_state(slots) | {OWN + name: value for name, value in self._own_state(chosen).items()}

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Put slots back into a state of `get_state`; returns their current observations."""
        own = {name.removeprefix(OWN): value for name, value in state.items() if name.startswith(OWN)}
        obs = self.env.set_state(_theirs(state), slots)
        return self._set_own_state(own, obs, self._select(slots))

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot, (height, width, 3) uint8."""
        return self.env.render(slot, width, height)

    def close(self) -> None:
        """Free what the environment holds."""
        self.env.close()

    def _begin(self, seeds: Sequence[int], slots: Sequence[int] | None, state: State | None) -> dict[str, Tensor]:
        """Reset the environment and the histories of these slots."""
        obs = self.env.reset(seeds, slots, None if state is None else _theirs(state))
        self._make_room(obs)
        self.history.reset(obs, slots)
        return obs

    def _make_room(self, obs: Mapping[str, Tensor]) -> None:
        # Slots that were never reset must be somewhere too: the base is asked for all at once.
        if not self.history.obs:
            self.history.reset({k: v.new_zeros(self.num_envs, *v.shape[1:]) for k, v in obs.items()})

    def _own_state(self, slots: list[int]) -> State:
        return {f"history.{name}": value.cpu().numpy().copy() for name, value in self.history.get(slots).items()}

    def _set_own_state(self, own: State, obs: dict[str, Tensor], slots: list[int]) -> dict[str, Tensor]:
        """Restore what `_own_state` returned; `obs` are the environment's, the result is the wrapper's."""
        self._make_room(obs)
        device = next(iter(obs.values())).device
        kept = {k.removeprefix("history."): v for k, v in own.items() if k.startswith("history.")}
        self.history.put({k: torch.from_numpy(v.copy()).to(device) for k, v in kept.items()}, slots)
        return obs

    def _select(self, slots: Sequence[int] | None) -> list[int]:
        return list(range(self.num_envs)) if slots is None else [int(slot) for slot in slots]


def _theirs(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith(OWN)}
