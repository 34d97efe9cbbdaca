"""What environments, policies and exported files say of themselves; free of torch and numpy.

Shapes leave out batch and time: a state of eleven numbers has shape (11,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError


@dataclass(frozen=True)
class ArraySpec:
    """One named array: its shape, and where known the names, limits and unit of its elements."""

    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    low: tuple[float, ...] | None = None
    """smallest value per element in physical units; None: unbounded"""
    high: tuple[float, ...] | None = None
    unit: str = ""

    @property
    def dim(self) -> int:
        """Length of a flat array."""
        if len(self.shape) != 1:
            raise UserError(f"expected a flat array, got shape {self.shape}")
        return self.shape[0]


@dataclass(frozen=True)
class EnvSpec:
    """An environment's facts, so that no configuration repeats them."""

    id: str
    obs: Mapping[str, ArraySpec]
    action: ArraySpec
    control_hz: float
    """actions per second of simulated time"""
    max_steps: int
    """environment steps after which an episode is truncated"""
    signals: tuple[str, ...] = ()
    """named per-step outputs beside the reward, such as `success`"""
    instruction: str = ""
    """what to do, in words, where the task has such a sentence"""
    reference: tuple[float, float] | None = None
    """returns of a random and an expert policy that define a normalised score (D4RL)"""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """keyword arguments that rebuild this very environment"""
    device: str = "cpu"


@dataclass(frozen=True)
class PolicySpec:
    """What an actor consumes and produces, in physical units."""

    obs: Mapping[str, ArraySpec]
    action: ArraySpec
    horizon: int
    """H: actions predicted per decision"""
    n_action_steps: int
    """n <= H: actions executed per decision"""
    n_obs_steps: int = 1
    """T: observations the policy sees, the newest last"""
    control_hz: float = 0.0
    """0: unknown"""
    env: str = ""
    """environment id the policy was made for"""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """its keyword arguments"""

    def __post_init__(self) -> None:
        if self.horizon < self.n_action_steps:
            raise UserError(
                f"horizon {self.horizon} is shorter than n_action_steps {self.n_action_steps}: "
                "predict at least as many actions as are executed"
            )
        if min(self.n_action_steps, self.n_obs_steps) < 1:
            raise UserError("n_action_steps and n_obs_steps must be at least 1")

    def check_env(self, env: EnvSpec) -> None:
        """Refuse an environment whose observations or actions differ in shape."""
        for what, ours, theirs in (
            (
                "observations",
                {k: v.shape for k, v in self.obs.items()},
                {k: v.shape for k, v in env.obs.items()},
            ),
            ("actions", self.action.shape, env.action.shape),
        ):
            if ours != theirs:
                made_for = f" (made for {self.env})" if self.env else ""
                raise UserError(f"policy{made_for} and environment {env.id} differ in {what}: {ours} != {theirs}")
