"""The verbs that train: pretrain, finetune, distill. `noisepilot VERB RECIPE --option value`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..algos.onpolicy import OnPolicy
from ..errors import UserError
from .cli import parse, take_option, take_positional
from .methods import METHODS
from .recipe import Recipe, get_recipe, with_encoder, with_network

if TYPE_CHECKING:
    from ..policies.policy import PolicyConfig
    from .finetune import Finetune


def pretrain(argv: list[str]) -> int:
    """`noisepilot pretrain [RECIPE] [--kind KIND] [--policy.network NAME] [--policy.encoder NAME]`."""
    from .pretrain import Pretrain
    from .pretrain import pretrain as run

    name, argv = take_positional(argv, "default")
    kind, argv = take_option(argv, "--kind", "diffusion")
    recipe = get_recipe(name)
    policy, _, argv = _take_parts(argv, "--policy", recipe.kind(kind))
    default = Pretrain("", "", recipe.env, policy, recipe.bc)
    config = parse(Pretrain, argv, f"noisepilot pretrain {name}", default)
    _require(config, "data", "out")
    print(f"pre-trained policy: {run(config).path}")
    return 0


def finetune(argv: list[str]) -> int:
    """`noisepilot finetune [RECIPE] [--algo NAME] [--kind KIND] [--seeds N]`: with a recipe's settings.

    Without --policy a fresh policy of that kind, with `--fresh.network NAME` and `--fresh.encoder NAME`, learns from
    --data.
    """
    from .finetune import Finetune
    from .finetune import finetune as run
    from .report import report

    name, argv = take_positional(argv, "default")
    algo, argv = take_option(argv, "--algo", "dppo")
    seeds, argv = take_option(argv, "--seeds", "1")
    recipe = get_recipe(name)
    settings = recipe.algo(algo)
    kind, argv = take_option(argv, "--kind", METHODS[algo].fresh if algo in METHODS else "diffusion")
    fresh, chosen, argv = _take_parts(argv, "--fresh", recipe.kind(kind))
    budget = recipe.budget_for(algo)
    # An off-policy checkpoint holds the replay: no more of them than evaluations.
    every = 1 if isinstance(settings, OnPolicy) else max(1, budget.eval_every)
    default = Finetune("", "", recipe.env, settings, budget, fresh=fresh, checkpoint_every=every)
    config = parse(Finetune, argv, f"noisepilot finetune {name} --algo {algo}", default)
    _require(config, "out")
    if config.policy and chosen:
        raise UserError(f"{chosen} is for a fresh policy, and --policy brings its own: leave one of them out")
    runs = [run(run_config).path for run_config in _seeded(config, seeds)]
    for path in runs:
        print(f"fine-tuned policy: {path}")
    if len(runs) > 1:
        print(f"report over all seeds: {report(runs, Path(config.out) / 'report.html')}")
    return 0


def bakeoff(argv: list[str]) -> int:
    """`noisepilot bakeoff [RECIPE] --policy RUN --algos A,B --budget env_steps=N --seeds 3 --out DIR`."""
    from .bakeoff import Bakeoff
    from .bakeoff import bakeoff as run

    name, argv = take_positional(argv, "default")
    config = parse(Bakeoff, argv, f"noisepilot bakeoff {name}", Bakeoff("", ""))
    _require(config, "policy", "out")
    print(f"bake-off: {run(config, get_recipe(name))}")
    return 0


def distill(argv: list[str]) -> int:
    """`noisepilot distill [RECIPE] [--distill.method NAME | --auto [--candidates A,B] [--budget wall=SECONDS]]`."""
    from ..algos.distill import named
    from .distill import DistillRun
    from .distill import distill as run

    name, argv = take_positional(argv, "default")
    method, argv = take_option(argv, "--distill.method", "")
    recipe = get_recipe(name)
    if "--auto" in argv:
        if method:
            raise UserError(f"--auto tries several methods: leave out --distill.method, or say --candidates {method}")
        return _distill_auto(name, recipe, [word for word in argv if word != "--auto"])
    settings = replace(recipe.distill, method=named(method)) if method else recipe.distill
    config = parse(DistillRun, argv, f"noisepilot distill {name}", DistillRun("", "", recipe.env, settings))
    _require(config, "policy", "out")
    found = run(config)
    print(f"{'few' if config.distill.method.steps > 1 else 'one'}-step student: {found.path}")
    return 0


def _distill_auto(name: str, recipe: Recipe, argv: list[str]) -> int:
    from .distill_auto import AutoDistill, auto
    from .table import show

    default = AutoDistill("", "", recipe.env, recipe.distill)
    config = parse(AutoDistill, argv, f"noisepilot distill {name} --auto", default)
    _require(config, "policy", "out")
    run, choice = auto(config)
    show(*choice.table())
    print(f"{choice.sentence}\nstudent: {run.path}")
    return 0


def _take_parts(argv: list[str], prefix: str, policy: PolicyConfig) -> tuple[PolicyConfig, str, list[str]]:
    """The policy with the network and encoder that options name, the first of those options, and the other words."""
    chosen = ""
    for option, change in ((f"{prefix}.network", with_network), (f"{prefix}.encoder", with_encoder)):
        part, argv = take_option(argv, option, "")
        policy, chosen = change(policy, part), chosen or (option if part else "")
    return policy, chosen, argv


def _seeded(config: Finetune, seeds: str) -> list[Finetune]:
    if not seeds.isdecimal() or int(seeds) < 1:
        raise UserError(f"--seeds {seeds} must be a number of runs, at least 1")
    if seeds == "1":
        return [config]
    return [replace(config, seed=s, out=f"{config.out}/seed{s}") for s in range(int(seeds))]


def _require(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name):
            raise UserError(f"--{name} is missing")
