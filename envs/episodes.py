"""What every core keeps per slot: how long its episode is, whether it is over, and what it saw last.

N slots, M of them running, n actions per chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..spec import EnvSpec
from .core import State, Step


@dataclass(frozen=True)
class Outcome:
    """What a simulator says of one chunk of M running slots, before it is known when they ended."""

    obs: Mapping[str, np.ndarray]
    """name -> (M, n, ...)"""
    reward: np.ndarray
    """(M, n)"""
    terminated: np.ndarray
    """(M, n)"""
    signals: Mapping[str, np.ndarray]
    """name -> (M, n)"""
    truncated: np.ndarray | None = None
    """(M, n), where the simulator has a clock of its own besides `EnvSpec.max_steps`"""


class Episodes:
    """The clock of N slots. A slot is idle before its first reset and after its episode ended."""

    def __init__(self, spec: EnvSpec, num_envs: int, dtypes: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.elapsed = np.zeros(num_envs, np.int64)
        self.ended = np.ones(num_envs, bool)
        types = dtypes or dict.fromkeys(spec.obs, "float64")
        self.obs = {k: np.zeros((num_envs, *array.shape), types[k]) for k, array in spec.obs.items()}

    def select(self, slots: Sequence[int] | None) -> np.ndarray:
        """The slots meant, as indices: all if None."""
        if slots is None:
            return np.arange(self.num_envs)
        chosen = np.asarray(slots, np.int64).reshape(-1)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < self.num_envs):
            raise UserError(f"slots {chosen.tolist()} are not all within 0..{self.num_envs - 1} of {self.spec.id}")
        return chosen

    def admit(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Check a chunk (N, n, A); return the running slots (M,) and their actions (M, n, A) in float64."""
        action = np.asarray(action, np.float64)
        wanted = (self.num_envs, self.spec.action.dim)
        if action.ndim != 3 or (action.shape[0], action.shape[2]) != wanted or action.shape[1] < 1:
            raise UserError(f"{self.spec.id} takes actions of shape ({wanted[0]}, n, {wanted[1]}), got {action.shape}")
        slots = np.flatnonzero(~self.ended)
        action = action[slots]
        if not np.isfinite(action).all():
            raise UserError(f"an action for {self.spec.id} is not finite (NaN or infinity)")
        return slots, action

    def begin(self, slots: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Start new episodes in `slots`, first observations given as name -> (M, ...)."""
        self.elapsed[slots] = 0
        self.ended[slots] = False
        self.see(slots, obs)

    def see(self, slots: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Remember the current observations of `slots`, name -> (M, ...)."""
        for name, value in obs.items():
            self.obs[name][slots] = value

    def record(self, slots: np.ndarray, outcome: Outcome) -> tuple[Step, np.ndarray]:
        """Advance the clock by a chunk.

        Returns the Step of all N slots and the index (M,) of the last action that each running slot executed.
        """
        n = outcome.reward.shape[1]
        count = self.elapsed[slots, None] + np.arange(1, n + 1)  # (M, n)
        truncated = count >= self.spec.max_steps
        if outcome.truncated is not None:
            truncated |= outcome.truncated
        over = np.logical_or.accumulate(outcome.terminated | truncated, axis=1)
        valid = np.ones_like(over)
        valid[:, 1:] = ~over[:, :-1]
        length = valid.sum(1)
        self.elapsed[slots] += length
        self.ended[slots] = over[:, -1]
        last = length - 1
        obs = outcome.obs if valid.all() else {k: hold(v, last) for k, v in outcome.obs.items()}
        step = Step(
            obs=obs,
            reward=np.where(valid, outcome.reward, 0.0),
            terminated=outcome.terminated & valid,
            truncated=truncated & valid,
            valid=valid,
            signals={k: np.where(valid, v, 0.0) for k, v in outcome.signals.items()},
        )
        self.see(slots, step.final_obs)
        return (step if len(slots) == self.num_envs else self._with_idle(slots, step)), last

    def idle(self, n: int) -> Step:
        """The Step of a chunk in which no slot moves."""
        nothing = np.zeros((0, n))
        signals = dict.fromkeys(self.spec.signals, nothing)
        return self._with_idle(
            np.arange(0),
            Step({}, nothing, nothing.astype(bool), nothing.astype(bool), nothing.astype(bool), signals),
        )

    def _with_idle(self, slots: np.ndarray, step: Step) -> Step:
        """Widen a Step of M slots to all N: the others repeat what they saw last."""
        n = step.reward.shape[1]

        def widen(value: np.ndarray) -> np.ndarray:
            wide = np.zeros((self.num_envs, n), value.dtype)
            wide[slots] = value
            return wide

        obs = {name: np.repeat(seen[:, None], n, 1) for name, seen in self.obs.items()}
        for name, value in step.obs.items():
            obs[name][slots] = value
        wide = Step({}, step.reward, step.terminated, step.truncated, step.valid, step.signals).map(widen)
        return Step(obs, wide.reward, wide.terminated, wide.truncated, wide.valid, wide.signals)

    def get_state(self, slots: np.ndarray) -> State:
        """The clock's part of `Core.get_state`."""
        return {"elapsed": self.elapsed[slots], "ended": self.ended[slots]}

    def set_state(self, slots: np.ndarray, state: State, obs: Mapping[str, np.ndarray]) -> None:
        """The clock's part of `Core.set_state`."""
        self.elapsed[slots] = state["elapsed"]
        self.ended[slots] = state["ended"]
        self.see(slots, obs)


def hold(value: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Repeat along axis 1 what stands at index `last` (M,) of each row."""
    index = np.minimum(np.arange(value.shape[1]), last[:, None])  # (M, n)
    return value[np.arange(len(value))[:, None], index]


def check_seeds(seeds: Sequence[int], slots: np.ndarray) -> Sequence[int]:
    """Refuse anything but one non-negative seed per slot."""
    if len(seeds) != len(slots):
        raise UserError(f"reset takes one seed per slot: {len(seeds)} seeds for {len(slots)} slots")
    if any(int(seed) < 0 for seed in seeds):
        raise UserError("seeds must not be negative")
    return [int(seed) for seed in seeds]
