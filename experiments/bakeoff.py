"""Methods beside each other: the same base, equal budgets, the same evaluation episodes, several seeds.

    OUT/<algo>/seed<i>/    a fine-tuning run each
    OUT/base.json          the base on the same episodes
    OUT/bakeoff.json       every number of the page
    OUT/report.html        the page

A run that is whole is kept, one that was interrupted continues, so the same command continues a bake-off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..algos.onpolicy import OnPolicy
from ..envs.seeds import eval_seeds
from ..errors import UserError, at_least
from ..files import atomic_write
from ..policies.policy import Policy
from ..policies.storage import data_hash, load_plain_policy
from .bakeoff_page import render
from .bakeoff_results import Contest, results
from .checkpoint import require_same
from .env_ref import EnvRef
from .evaluate import evaluate, of_policy
from .finetune import Finetune, environment, finetune, learner_of
from .ledger import Ledger
from .limit import read_limit
from .offpolicy import check_settings
from .recipe import CURVE, Budget, Recipe
from .run_folder import RunFolder

FOREVER = 10**9


@dataclass(frozen=True)
class Bakeoff:
    """bakeoff [RECIPE]: fine-tune one policy with several methods and say which is best, how surely, at what cost."""

    policy: str
    """the base: a policy folder or a pre-training run"""
    out: str
    """folder to write"""
    algos: str = "dppo"
    """methods, with commas between: `noisepilot list algos` names them"""
    budget: str = "env_steps=150000"
    """of each run: env_steps=N, or wall=SECONDS of training without evaluations"""
    seeds: int = 3
    """runs per method"""
    eval_episodes: int = 100
    """the same for every method, at every evaluation"""

    def __post_init__(self) -> None:
        at_least(1, self, "seeds", "eval_episodes")
        _ = self.names, self.limit  # refuse what they refuse

    @property
    def names(self) -> list[str]:
        """The methods."""
        names = [name.strip() for name in self.algos.split(",") if name.strip()]
        if not names or len(set(names)) < len(names):
            raise UserError(f"--algos {self.algos} must name methods, each once: --algos dppo,reinflow")
        return names

    @property
    def limit(self) -> tuple[str, float]:
        """What a run may spend: ("env_steps" or "wall", amount)."""
        return read_limit(self.budget, "env_steps", "env_steps=150000")


def bakeoff(config: Bakeoff, recipe: Recipe) -> Path:
    """Run what is missing, and write the page; a method that fails is named on it.

    Returns:
        Where the page lies.

    Raises:
        UserError: before anything is trained, for a method that the policy cannot serve.
    """
    settings = {name: recipe.algo(name) for name in config.names}
    if (Path(config.out) / "config.json").is_file():
        raise UserError(f"{config.out} is a run, a bake-off is a folder of runs: give another --out")
    base = load_plain_policy(config.policy, "bakeoff starts from")
    env = recipe.env.or_else(base.spec.env, base.spec.env_kwargs)
    begin = Finetune(config.policy, "", env, resume=True)
    runs = {
        name: _planned(config, replace(begin, algo=algo, budget=recipe.budget_for(name)), name)
        for name, algo in settings.items()
    }
    ledger = _measure_base(config, base, env)
    failed: dict[str, str] = {}
    for name, planned in runs.items():
        for run in planned:
            try:
                _complete(run)
            except UserError as error:
                failed[name] = f"seed {run.seed}: {error}"
                print(f"{name} failed: {failed[name]}", flush=True)
                break
    whole = {name: [RunFolder.open(run.out) for run in planned] for name, planned in runs.items() if name not in failed}
    contest = results(ledger, whole, failed)
    return _write(config, contest)


def _planned(config: Bakeoff, begin: Finetune, name: str) -> list[Finetune]:
    """The runs of one method, which is set up once to see whether it can begin."""
    per_decision = _try(begin, name)
    budget = replace(begin.budget, eval_episodes=config.eval_episodes)
    kind, amount = config.limit
    if kind == "wall":
        # An off-policy iteration is cut short, for it is the unit in which seconds are spent.
        decisions = budget.decisions if isinstance(begin.algo, OnPolicy) else min(budget.decisions, 25)
        budget = replace(budget, wall_s=amount, iterations=FOREVER, decisions=decisions)
    else:
        budget = _of_steps(budget, int(amount), per_decision, f"--budget {config.budget} is too small for {name}")
    begin = replace(begin, budget=budget, checkpoint_every=budget.eval_every)
    try:
        if not isinstance(begin.algo, OnPolicy):
            check_settings(begin.algo, budget)
        begin.check()
    except UserError as error:
        raise UserError(f"--budget {config.budget} is too small for {name}: {error}") from None
    return [replace(begin, seed=i, out=str(Path(config.out) / name / f"seed{i}")) for i in range(config.seeds)]


def _of_steps(budget: Budget, env_steps: int, per_decision: int, too_small: str) -> Budget:
    """As many iterations as take at most `env_steps`, none larger than the budget's own."""
    steps = budget.num_envs * per_decision
    iterations = max(CURVE, -(-env_steps // (steps * budget.decisions)))
    decisions = env_steps // (steps * iterations)
    if decisions < 1:
        raise UserError(f"{too_small}: {CURVE} iterations take {steps * CURVE}")
    return replace(budget, decisions=decisions, iterations=iterations, eval_every=max(1, iterations // CURVE))


def _try(begin: Finetune, name: str) -> int:
    """Set a method up and forget it; returns the environment steps that one of its decisions takes at most."""
    small = replace(begin, budget=replace(begin.budget, num_envs=2, iterations=FOREVER))
    try:
        with learner_of(small) as learner:
            return learner.actor.spec.n_action_steps
    except UserError as error:
        raise UserError(f"{name} cannot start from {begin.policy}: {error}") from None


def _measure_base(config: Bakeoff, base: Policy, env: EnvRef) -> Ledger:
    path = Path(config.out) / "base.json"
    if path.is_file():
        known = Ledger.load(path)
        if len(known) != config.eval_episodes or known.policy_hash != base.hash():
            raise UserError(f"{config.out} holds a bake-off of another base or number of episodes: give another --out")
        return known
    with environment(env, min(40, config.eval_episodes), base) as vector:
        ledger = of_policy(evaluate(base, vector, eval_seeds(config.eval_episodes)), base, config.policy)
    ledger.save(path)
    return ledger


def _complete(config: Finetune) -> None:
    """Run, continue, or leave as it is."""
    if (Path(config.out) / "config.json").is_file():
        run = RunFolder.open(config.out)
        require_same(run, config, data_hash(config.policy))
        lines = run.metrics()
        if lines and config.budget.spent(lines[-1]["iteration"], lines[-1]["wall_s"]):
            newest = run.latest_checkpoint()
            if newest is not None and int(newest.name) == lines[-1]["env_steps"]:
                return
    finetune(config)


def _write(config: Bakeoff, contest: Contest) -> Path:
    out = Path(config.out)
    facts: Mapping[str, Any] = {"policy": config.policy, "budget": config.budget, "seeds": config.seeds}
    atomic_write(out / "bakeoff.json", json.dumps({**facts, **contest.to_json()}, indent=1) + "\n")
    atomic_write(out / "report.html", render(contest, facts))
    return out / "report.html"
