"""The record of an evaluation: one row per episode, so that two policies can be compared episode by episode.

Every number shown elsewhere (tables, reports, comparisons) is computed from these rows. E episodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_write
from . import statistics
from .statistics import Interval

SCHEMA = 1
COLUMNS = ("seed", "returns", "length", "success", "time_s", "goal_s")


@dataclass(frozen=True, eq=False)
class Ledger:
    """What happened in every episode, in the order of the seeds asked for."""

    env: str
    seed: np.ndarray
    """(E,) int: the seed that fixes an episode's start and its noise"""
    returns: np.ndarray
    """(E,) undiscounted sum of rewards"""
    length: np.ndarray
    """(E,) int: environment steps"""
    success: np.ndarray
    """(E,) 1 if the `success` signal was ever raised, 0 if not, NaN where the environment has none"""
    time_s: np.ndarray
    """(E,) simulated seconds, `length` / control rate"""
    goal_s: np.ndarray
    """(E,) simulated seconds until success was first raised, NaN without success"""
    peaks: Mapping[str, np.ndarray] = field(default_factory=dict)
    """signal -> (E,) its largest value in the episode; every signal but success"""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reference: tuple[float, float] | None = None
    """returns of a random and an expert policy, for normalised scores"""
    n_action_steps: int = 0
    policy: str = ""
    """folder or name of the actor"""
    policy_hash: str = ""
    sampler: str = ""
    deterministic: bool = False
    """no noise after the first latent of a chain"""
    wall_s: float = 0.0
    voided: int = 0
    """episodes that were lost with their worker and run again"""

    def __len__(self) -> int:
        return len(self.seed)

    @property
    def env_steps(self) -> int:
        """Environment steps of all episodes together."""
        return int(self.length.sum())

    @property
    def has_success(self) -> bool:
        """The environment says whether an episode succeeded."""
        return not np.isnan(self.success).any()

    def return_interval(self, *, level: float = 0.95) -> Interval:
        """Mean return with its bootstrap interval."""
        return statistics.bootstrap_mean(self.returns, level=level)

    def success_interval(self, *, level: float = 0.95) -> Interval | None:
        """Success rate in [0, 1] with Wilson's interval; None where the environment has no such signal."""
        if not self.has_success:
            return None
        return statistics.wilson(int(self.success.sum()), len(self), level=level)

    def score_interval(self, *, level: float = 0.95) -> Interval | None:
        """Normalised score (0 random, 100 expert); None without a reference."""
        reference = self.reference
        if reference is None:
            return None
        return self.return_interval(level=level).scaled(lambda x: statistics.normalised_score(x, reference))

    def goal_interval(self, *, level: float = 0.95) -> Interval | None:
        """Mean simulated seconds to the goal over the successful episodes; None if there are none."""
        reached = self.goal_s[np.isfinite(self.goal_s)]
        return statistics.bootstrap_mean(reached, level=level) if reached.size else None

    def summary(self) -> dict[str, Any]:
        """Headline numbers as JSON values; intervals are mappings of mean, low and high (95 %)."""
        intervals = {
            "return": self.return_interval(),
            "success": self.success_interval(),
            "normalised_score": self.score_interval(),
            "time_to_goal_s": self.goal_interval(),
        } | {f"max_{name}": statistics.bootstrap_mean(peak) for name, peak in self.peaks.items()}
        return {
            "env": self.env,
            "policy": self.policy,
            "episodes": len(self),
            "env_steps": self.env_steps,
            "wall_s": self.wall_s,
            "length": float(self.length.mean()),
            **({"voided": self.voided} if self.voided else {}),
        } | {name: vars(value) for name, value in intervals.items() if value}

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """Headline numbers under the keys of metrics.jsonl; `<key>_low` and `<key>_high` are 95 % limits."""
        found = {
            f"{prefix}/mean_reward": self.return_interval(),
            f"{prefix}/success_rate": self.success_interval(),
        } | {f"{prefix}/max_{name}": statistics.bootstrap_mean(peak) for name, peak in self.peaks.items()}
        values = {f"{prefix}/mean_ep_length": float(self.length.mean())}
        for key, interval in found.items():
            if interval:
                values |= {key: interval.mean, f"{key}_low": interval.low, f"{key}_high": interval.high}
        return values

    def in_seed_order(self) -> Ledger:
        """The same episodes, sorted by seed."""
        return self.at(np.sort(self.seed))

    def at(self, seeds: np.ndarray) -> Ledger:
        """The episodes of these seeds, which must be among the ledger's, in their order."""
        by_seed = np.argsort(self.seed)
        rows = by_seed[np.searchsorted(self.seed, seeds, sorter=by_seed)]
        peaks = {name: peak[rows] for name, peak in self.peaks.items()}
        return replace(self, peaks=peaks, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def save(self, path: str | Path) -> None:
        """Write JSON; NaN becomes null."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in COLUMNS}
        facts["peaks"] = {name: _to_list(peak) for name, peak in self.peaks.items()}
        columns = {name: _to_list(getattr(self, name)) for name in COLUMNS}
        # One column per line keeps a thousand episodes readable.
        body = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in (facts | columns).items())
        atomic_write(Path(path), f'{{\n  "schema": {SCHEMA},\n{body}\n}}\n')

    @classmethod
    def load(cls, path: str | Path) -> Ledger:
        """Read what `save` wrote.

        Raises:
            UserError: if the file is missing, is no ledger, or was written by a newer version.
        """
        content = read_json(Path(path))
        if not isinstance(content, dict) or not {"schema", *COLUMNS} <= content.keys():
            raise UserError(f"{path} is no evaluation: give a file written by `noisepilot eval`")
        if content.pop("schema") != SCHEMA:
            raise UserError(f"{path} was written by another version of noisepilot: evaluate again")
        columns: dict[str, Any] = {name: _to_array(name, content.pop(name)) for name in COLUMNS}
        reference = content.pop("reference")
        peaks = {name: _to_array(name, values) for name, values in content.pop("peaks", {}).items()}
        return cls(**content, **columns, peaks=peaks, reference=tuple(reference) if reference else None)


def read_json(path: Path) -> Any:
    """Parse a JSON file of a run.

    Raises:
        UserError: if it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path") from None
    except ValueError:
        raise UserError(f"{path} is not JSON: check the path, or write the file again") from None


def _to_list(column: np.ndarray) -> list[Any]:
    return [None if value != value else value for value in column.tolist()]


def _to_array(name: str, values: list[Any]) -> np.ndarray:
    if name in ("seed", "length"):
        return np.array(values, dtype=np.int64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
