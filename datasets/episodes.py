"""Episodes: demonstrations in memory, every step of every key in one array, under LeRobot's names.

Keys: `observation.<name>`, `action`, `next.reward`, `next.terminated`, `next.truncated`, `next.success`.
Row t holds the observation, the action taken on it and what that action led to. The observation after the
last action of an episode has no row of its own; where a source knows it, `final` holds it.

Shapes: T steps of all episodes together, E episodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import from_dict
from ..errors import UserError
from ..spec import ArraySpec
from .validity import OBS, check_ends, check_keys, check_rows

SCHEMA = 1
STATS_NUMBERS = 2**23
"""numbers that statistics are taken of at a time"""


@dataclass(frozen=True)
class Stats:
    """What one key's values look like, per element; every array has the shape of one step."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray


@dataclass(frozen=True, eq=False)
class Episodes:
    """A set of demonstrations, resident in memory.

    Raises:
        UserError: for arrays that do not fit each other, on construction.
    """

    data: Mapping[str, np.ndarray]
    """key -> (T, ...)"""
    ends: np.ndarray
    """(E,) int64: one past the last row of each episode"""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: env, env_kwargs, fps, source, licence, specs (key -> tagged ArraySpec)"""
    final: Mapping[str, np.ndarray] = field(default_factory=dict)
    """observation key -> (E, ...): what followed the last action; may be absent"""
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", np.asarray(self.ends, np.int64))
        check_ends(self.ends)
        check_rows(self.data, self.num_steps, "step")
        check_rows(self.final, len(self), "episode")
        check_keys(self.data, self.final)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.ends[-1])

    @property
    def starts(self) -> np.ndarray:
        """(E,) first row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    @property
    def lengths(self) -> np.ndarray:
        """(E,) steps of each episode."""
        return self.ends - self.starts

    @property
    def obs_keys(self) -> tuple[str, ...]:
        """Observation keys, sorted."""
        return tuple(sorted(key for key in self.data if key.startswith(OBS)))

    def specs(self) -> dict[str, ArraySpec]:
        """Key -> spec, as far as recorded."""
        return recorded_specs(self.attrs)

    def obs_specs(self) -> dict[str, ArraySpec]:
        """Name (without `observation.`) -> spec, as recorded, else from the arrays' shapes."""
        return {key.removeprefix(OBS): self._spec(key) for key in self.obs_keys}

    def action_spec(self) -> ArraySpec:
        """Spec of one action, as recorded, else from the array's shape."""
        return self._spec("action")

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Key -> (length, ...) views of one episode."""
        return {key: value[self._rows(index)] for key, value in self.data.items()}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.episode(i) for i in range(len(self)))

    def next_obs(self, name: str) -> np.ndarray:
        """(T, ...) observation after each action; without a final one an episode repeats its last."""
        obs = self.data[OBS + name]
        shifted = np.concatenate([obs[1:], obs[-1:]])
        last = self.ends[self.lengths > 0] - 1
        shifted[last] = self.final[OBS + name][self.lengths > 0] if OBS + name in self.final else obs[last]
        return shifted

    def returns(self) -> np.ndarray:
        """(E,) sum of rewards, undiscounted.

        Raises:
            UserError: where no rewards are recorded.
        """
        if "next.reward" not in self.data:
            raise UserError(f"{self._name} has no rewards ('next.reward'): returns are unknown")
        return sums(self.data["next.reward"], self.ends)

    def success_rate(self) -> float | None:
        """Share of episodes that raised success at any step; None where success is not recorded."""
        if "next.success" not in self.data:
            return None
        return float((sums(self.data["next.success"] > 0, self.ends) > 0).mean())

    def stats(self, key: str) -> Stats:
        """Limits, moments and 1 % and 99 % quantiles of one key, in float64.

        Raises:
            UserError: for a key that is not there.
        """
        if key not in self.data:
            raise UserError(f"{self._name} has no '{key}': it has {', '.join(sorted(self.data))}")
        if key not in self._cache:
            self._cache[key] = _stats(self.data[key])
        return self._cache[key]

    def hash(self) -> str:
        """SHA-256 of keys, types, shapes, values and episode boundaries; attributes do not count."""
        if "hash" not in self._cache:
            self._cache["hash"] = _sha256({**self.data, "episode_ends": self.ends, **_finals(self.final)})
        return self._cache["hash"]

    def select(self, indices: Sequence[int] | np.ndarray) -> Episodes:
        """The named episodes, in the given order, as a set of their own."""
        indices = np.asarray(indices, np.int64)
        rows = np.concatenate([np.arange(self.num_steps)[self._rows(int(i))] for i in indices])
        return Episodes(
            {key: value[rows] for key, value in self.data.items()},
            np.cumsum(self.lengths[indices]),
            self.attrs,
            {key: value[indices] for key, value in self.final.items()},
        )

    def observing(self, names: Iterable[str]) -> Episodes:
        """The set with these observations alone, named without `observation.`.

        Raises:
            UserError: where one is absent.
        """
        wanted = {OBS + name for name in names}
        if missing := sorted(wanted - set(self.obs_keys)):
            raise UserError(f"{self._name} has no '{missing[0]}', only {', '.join(self.obs_keys)}")
        others = set(self.obs_keys) - wanted
        data, final = ({k: v for k, v in part.items() if k not in others} for part in (self.data, self.final))
        return replace(self, data=data, final=final)

    def split(self, fraction: float, seed: int) -> tuple[Episodes, Episodes]:
        """Hold out `fraction` of the episodes, at least one, drawn by `seed`: (train, held out).

        Raises:
            UserError: for a fraction outside (0, 1), or a set of one episode.
        """
        if not 0 < fraction < 1:
            raise UserError(f"a held-out fraction of {fraction} leaves one part empty: choose one inside (0, 1)")
        if len(self) < 2:
            raise UserError(f"{self._name} has one episode and cannot be split: train without a held-out part")
        count = min(max(round(fraction * len(self)), 1), len(self) - 1)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.select(np.sort(order[count:])), self.select(np.sort(order[:count]))

    def write(self, path: str | Path) -> None:
        """Write the set as a zarr folder, whole or not at all; `load` reads it back.

        Raises:
            UserError: where `path` exists or cannot be written.
        """
        from .zarr_layout import write

        write(path, self)

    @property
    def _name(self) -> str:
        return str(self.attrs.get("source") or "the dataset")

    def _rows(self, index: int) -> slice:
        return slice(int(self.starts[index]), int(self.ends[index]))

    def _spec(self, key: str) -> ArraySpec:
        recorded = self.specs().get(key)
        return recorded or ArraySpec(shape=tuple(self.data[key].shape[1:]))


def sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(E,) sum of values (T,) over each episode."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.diff(total[ends], prepend=0.0)


def recorded_specs(attrs: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Key -> spec, of the attributes of a set; empty where none are recorded.

    Raises:
        UserError: where they are something else.
    """
    specs = from_dict(attrs.get("specs") or {})
    if not isinstance(specs, dict) or not all(isinstance(spec, ArraySpec) for spec in specs.values()):
        raise UserError("the attribute 'specs' is damaged: it must hold an ArraySpec per key; restore or remove it")
    return specs


def _stats(value: np.ndarray) -> Stats:
    # Some elements at a time: all pictures in float64 would be eight times the set.
    flat, width = value.reshape(len(value), -1), max(1, STATS_NUMBERS // len(value))
    parts = [_moments(flat[:, at : at + width].astype(np.float64)) for at in range(0, flat.shape[1], width)]
    return Stats(*(np.concatenate(part).reshape(value.shape[1:]) for part in zip(*parts, strict=True)))


def _moments(value: np.ndarray) -> tuple[np.ndarray, ...]:
    q01, q99 = np.quantile(value, [0.01, 0.99], axis=0)
    return value.min(0), value.max(0), value.mean(0), value.std(0), q01, q99


def _finals(final: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"final/{key}": value for key, value in final.items()}


def _sha256(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        value = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data)
    return digest.hexdigest()
