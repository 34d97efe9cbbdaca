"""What every fine-tuning keeps, whatever its method: state, generator, where its environments are, what it has done.

`onpolicy.py` and `offpolicy.py` say what an iteration is; `finetune.py` runs iterations, evaluates and saves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from ..errors import UserError
from ..policies.actor import Base
from ..policies.storage import SavedActor
from .checkpoint import load_optimizer_state, optimizer_state
from .stepper import Stepper, TimedEnv


@runtime_checkable
class LearnerState(Protocol):
    """What an algorithm keeps between updates."""

    @property
    def actor(self) -> Any:
        """The `SavedActor`: what is evaluated and saved; acts in the environment as it is."""
        ...

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        ...

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What has moments."""
        ...

    def extra(self) -> dict[str, Any]:
        """The rest: numbers and small tensors."""
        ...

    def load_extra(self, extra: dict[str, Any]) -> None:
        """Restore what `extra` returned."""
        ...


class Learner(ABC):
    """One fine-tuning.

    Attributes:
        iteration: iterations done.
        offline_steps: gradient steps done before them, on recorded data.
    """

    state: LearnerState
    stepper: Stepper
    starts_as_base = False
    """the actor acts like the base until it has learned something"""

    def __init__(self, env: TimedEnv, generator: torch.Generator) -> None:
        self.timed, self.generator = env, generator
        self.iteration = 0
        self.offline_steps = 0

    @property
    def actor(self) -> SavedActor:
        """What is evaluated and saved."""
        return self.state.actor

    @property
    @abstractmethod
    def grad_steps(self) -> int:
        """Gradient steps done."""

    @abstractmethod
    def audit(self, base: Base) -> None:
        """Check, before learning, what the method promises of its start."""

    @property
    def env_steps(self) -> int:
        """Environment steps done."""
        return self.stepper.env_steps

    @property
    def position(self) -> int:
        """Names checkpoints and evaluations: environment steps, and before them gradient steps on recorded data."""
        return self.offline_steps + self.env_steps

    @abstractmethod
    def iterate(self) -> dict[str, Any]:
        """One iteration; returns metrics, `time/env_s`, `time/sampling_s` and `time/update_s` among them."""

    @abstractmethod
    def offline(self, grad_steps: int) -> dict[str, Any]:
        """Gradient steps on recorded data; returns metrics."""

    def tree(self) -> dict[str, Any]:
        """Everything that a bit-equal continuation needs."""
        return {
            "modules": {k: v.state_dict() for k, v in self.state.modules().items()},
            "optimizers": {k: optimizer_state(v) for k, v in self.state.optimizers().items()},
            "extra": self.state.extra(),
            "stepper": self.stepper.tree(),
            "generator": self.generator.get_state(),
            "iteration": self.iteration,
            "offline_steps": self.offline_steps,
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        for name, module in self.state.modules().items():
            module.load_state_dict(tree["modules"][name])
        for name, optimizer in self.state.optimizers().items():
            load_optimizer_state(optimizer, tree["optimizers"][name])
        self.state.load_extra(tree["extra"])
        self.stepper.load(tree["stepper"])
        self.generator.set_state(tree["generator"])
        self.iteration, self.offline_steps = tree["iteration"], tree["offline_steps"]


def training_metrics(learned: Mapping[str, float]) -> dict[str, float]:
    """An algorithm's metrics under their keys of metrics.jsonl.

    Raises:
        UserError: if one is not finite.
    """
    if not all(math.isfinite(v) for v in learned.values()):
        raise UserError("a loss is not finite: lower the learning rates, or resume from an earlier checkpoint")
    return {f"train/{k}": v for k, v in learned.items()}
