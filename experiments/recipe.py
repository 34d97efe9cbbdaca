"""What a recipe holds: an environment, a policy and the settings of every stage, as one value."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..algos.bc import BC
from ..algos.distill import Distill
from ..algos.dppo import DPPO
from ..errors import UserError, at_least, unknown
from ..policies.policy import PolicyConfig
from .env_ref import EnvRef

Algorithm = DPPO
"""union of the methods that `finetune --algo` offers"""


@dataclass(frozen=True)
class Budget:
    """How much experience fine-tuning gathers, and how often it looks at itself."""

    num_envs: int = 40
    decisions: int = 500
    """decisions per environment and iteration; one decision executes `n_action_steps` actions"""
    iterations: int = 16
    eval_every: int = 5
    """iterations between evaluations; 0: only before and after"""
    eval_episodes: int = 40
    reset_each_iteration: bool = False
    """start every iteration with new episodes (official for robomimic) instead of going on"""

    def __post_init__(self) -> None:
        at_least(1, self, "num_envs", "decisions", "iterations", "eval_episodes")
        at_least(0, self, "eval_every")
        if self.num_envs * self.decisions < 2:
            raise UserError("an iteration of one decision teaches nothing: raise num_envs or decisions")


@dataclass(frozen=True)
class Recipe:
    """Defaults for one task; every field can be overridden on the command line."""

    env: EnvRef = field(default_factory=EnvRef)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    bc: BC = field(default_factory=BC)
    algos: Mapping[str, Algorithm] = field(default_factory=lambda: {"dppo": DPPO()})
    """name on the command line -> settings; `<algo>-official` reproduces the official code's choices"""
    budget: Budget = field(default_factory=Budget)
    distill: Distill = field(default_factory=Distill)

    def algo(self, name: str) -> Algorithm:
        """The settings of an algorithm.

        Raises:
            UserError: if the recipe has none of that name.
        """
        if name not in self.algos:
            raise unknown("algorithm", name, self.algos)
        return self.algos[name]


def recipes() -> dict[str, Recipe]:
    """All recipes by name: every file in `recipes/` has a mapping RECIPES."""
    from . import recipes as package

    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(package.__path__):
        found |= importlib.import_module(f"{package.__name__}.{module.name}").RECIPES
    return found


def get_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: if there is none.
    """
    known = recipes()
    if name not in known:
        raise unknown("recipe", name, known)
    return known[name]
