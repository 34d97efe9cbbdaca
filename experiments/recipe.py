"""What a recipe holds: an environment, a policy and the settings of every stage, as one value."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..algos.bc import BC
from ..algos.distill import Distill
from ..algos.onpolicy import OnPolicy
from ..algos.resip import ResiP
from ..errors import UserError, at_least, unknown
from ..policies.networks import NETWORKS
from ..policies.objective import Consistency, MeanFlow, Shortcut
from ..policies.path import LinearPath
from ..policies.policy import PolicyConfig
from ..policies.vision import ENCODERS
from .env_ref import EnvRef
from .methods import METHODS, Algorithm

CURVE = 5
"""evaluations at least, of a run that is limited by seconds or compared with others"""


@dataclass(frozen=True)
class Budget:
    """How much experience fine-tuning gathers, and how often it looks at itself."""

    num_envs: int = 40
    decisions: int = 500
    """decisions per environment and iteration; one decision executes `n_action_steps` actions"""
    iterations: int = 16
    """0, after gradient steps on recorded data: no experience at all"""
    wall_s: float = 0.0
    """seconds of training, without evaluations, that no iteration is begun to pass; 0: no limit"""
    eval_every: int = 5
    """iterations between evaluations; 0: only before and after. With `wall_s` every fifth of that, whatever this is"""
    eval_episodes: int = 40
    reset_each_iteration: bool = False
    """start every iteration with new episodes (official for robomimic) instead of going on"""

    def __post_init__(self) -> None:
        at_least(1, self, "num_envs", "decisions", "eval_episodes")
        at_least(0, self, "iterations", "eval_every", "wall_s")
        if math.isinf(self.wall_s):
            raise UserError("wall_s must be finite: 0 sets no limit")
        if self.num_envs * self.decisions < 2:
            raise UserError("an iteration of one decision teaches nothing: raise num_envs or decisions")

    def spent(self, iteration: int, wall_s: float) -> bool:
        """There is no room for another iteration as long as the mean of those before it."""
        late = self.wall_s > 0 and iteration > 0 and wall_s * (iteration + 1) / iteration > self.wall_s
        return iteration >= self.iterations or late

    def due(self, iteration: int, before_s: float, wall_s: float) -> bool:
        """An evaluation belongs after this iteration, which began at `before_s` seconds of training."""
        if self.wall_s:
            return int(wall_s / self.wall_s * CURVE) > int(before_s / self.wall_s * CURVE)
        return self.eval_every > 0 and iteration % self.eval_every == 0


@dataclass(frozen=True)
class Recipe:
    """Defaults for one task; every field can be overridden on the command line."""

    env: EnvRef = field(default_factory=EnvRef)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    bc: BC = field(default_factory=BC)
    algos: Mapping[str, Algorithm] = field(default_factory=dict)
    """methods with settings of their own for this task; the others have the defaults of `methods.py`"""
    budget: Budget = field(default_factory=Budget)
    """of on-policy methods, and of those that `budgets` leaves out"""
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    """by method"""
    policies: Mapping[str, PolicyConfig] = field(default_factory=dict)
    """kinds of policy that differ from what `kinds` makes of `policy`"""
    distill: Distill = field(default_factory=Distill)

    def algo(self, name: str) -> Algorithm:
        """The settings of a method: the task's own, else the defaults.

        Raises:
            UserError: if there is none of that name.
        """
        if name in self.algos:
            return self.algos[name]
        if name not in METHODS:
            raise unknown("algorithm", name, {*self.algos, *METHODS})
        return METHODS[name].settings

    def budget_for(self, name: str) -> Budget:
        """The budget of a method: its own, else the task's; an off-policy method gathers it in smaller portions."""
        if name in self.budgets:
            return self.budgets[name]
        if isinstance(self.algo(name), ResiP):  # its decisions are single steps
            return replace(self.budget, decisions=self.budget.decisions * self.policy.n_action_steps)
        if isinstance(self.algo(name), OnPolicy):
            return self.budget
        portions = {"num_envs": 8, "decisions": 250, "iterations": 100, "eval_every": 10}
        return replace(self.budget, **portions, reset_each_iteration=False)

    def kind(self, name: str) -> PolicyConfig:
        """The policy of a kind: diffusion, flow, shortcut, meanflow or consistency.

        Raises:
            UserError: if there is none of that name.
        """
        known = kinds(self.policy) | dict(self.policies)
        if name not in known:
            raise unknown("kind of policy", name, known)
        return known[name]


def kinds(diffusion: PolicyConfig) -> dict[str, PolicyConfig]:
    """A diffusion policy, and the policies of its size that walk a straight path, by name.

    A flow and a shortcut policy take four steps, mean-flow and consistency policies one.
    """
    flow = replace(
        diffusion,
        path=LinearPath(),
        predicts="velocity",
        sampler=replace(diffusion.sampler, steps=4, eta=0.0, clip_data=None, clip_mean=1.0),
    )
    one = replace(flow, sampler=replace(flow.sampler, steps=1))
    sized = replace(flow.network, step_size=True)
    return {
        "diffusion": diffusion,
        "flow": flow,
        "shortcut": replace(flow, network=sized, objective=Shortcut()),
        "meanflow": replace(one, network=sized, objective=MeanFlow()),
        "consistency": replace(one, objective=Consistency()),
    }


def with_network(policy: PolicyConfig, name: str) -> PolicyConfig:
    """The policy with another network, as it comes; with an empty name its own.

    Raises:
        UserError: if there is none of that name.
    """
    if not name:
        return policy
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return replace(policy, network=replace(NETWORKS[name], step_size=policy.network.step_size))


def with_encoder(policy: PolicyConfig, name: str) -> PolicyConfig:
    """The policy with another encoder of pictures, as it comes; `none` for none, with an empty name its own.

    Raises:
        UserError: if there is none of that name.
    """
    if not name:
        return policy
    known = {"none": None, **ENCODERS}
    if name not in known:
        raise unknown("encoder", name, known)
    return replace(policy, encoder=known[name])


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
