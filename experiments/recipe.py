"""What a recipe holds: an environment, a policy and the settings of every stage, as one value."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from ..algos.bc import BC
from ..algos.distill import Distill
from ..algos.dppo import DPPO
from ..errors import UserError, unknown
from ..policies.policy import PolicyConfig

JSON = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda words: json_mapping(words[0]),
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda value: [json.dumps(value)],
)
Algorithm = DPPO
"""union of the methods that `finetune --algo` offers"""


def json_mapping(text: str) -> dict[str, Any]:
    """A JSON object from the command line."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"'{text}' is not a JSON object: write it like '{{\"key\": 1}}'")
    return value


@dataclass(frozen=True)
class EnvRef:
    """An environment by name."""

    id: str = ""
    """registered id or `package.module:factory`; empty: none, train on data alone"""
    kwargs: Annotated[dict[str, Any], JSON] = field(default_factory=dict)
    """keyword arguments of the environment, as JSON"""


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
