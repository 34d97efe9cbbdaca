"""The verb `import`: what other tools trained becomes a policy folder.

Diffusion Policy's checkpoints and LeRobot's folders hold all that a policy needs. DPPO's and ReinFlow's do not: a
recipe and options say the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..policies.foreign.imported import Importable
from ..policies.policy import Policy, PolicyConfig
from .cli import parse, take_option, take_positional
from .env_ref import EnvRef
from .recipe import get_recipe


@dataclass(frozen=True)
class Import:
    """import [RECIPE]: a policy that a file holds whole; a recipe, or --env, names the environment it acts in."""

    weights: Path
    """a checkpoint of Diffusion Policy (latest.ckpt), or a folder of LeRobot's diffusion policy"""
    out: Path
    """policy folder to write"""
    env: EnvRef = field(default_factory=EnvRef)
    """empty: name it when the policy is used"""


@dataclass(frozen=True)
class ImportOfficial:
    """import RECIPE: weights and normalisation of DPPO or ReinFlow, and the policy that they fill.

    The kind of network and its sizes are read off the weights; with --weights, --help shows that network's options.
    Diffusion Policy's and LeRobot's files need --weights and --out alone.
    """

    weights: Path = Path()
    """state_*.pt of DPPO or ReinFlow, or an .npz of arrays under their names; latest.ckpt of Diffusion Policy; a
    folder of LeRobot"""
    normalization: Path = Path()
    """.npz with obs_min, obs_max, action_min, action_max"""
    out: Path = Path()
    """policy folder to write"""
    env: EnvRef = field(default_factory=EnvRef)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """what weights do not show: activation, groups, heads, path, sampler; names and order of observations"""
    prefix: str = ""
    """what precedes the network's names, such as `model/network.`; empty: the tuned ones, else averages, else raw"""
    finetune_steps: int = 0
    """denoising steps that DPPO tuned (its ft_denoising_steps), of which its checkpoints say nothing"""


def import_weights(argv: list[str]) -> int:
    """`noisepilot import [RECIPE] --weights FILE --out FOLDER`; which tool wrote the file shows in what it holds."""
    from ..policies.foreign.layouts import recognise

    name, argv = take_positional(argv, "")
    weights, _ = take_option(argv, "--weights", "")
    if weights and not Path(weights).exists():
        raise UserError(f"{weights} does not exist: give a checkpoint, an .npz of weights or a folder of LeRobot")
    found = recognise(Path(weights)) if weights else None
    return _import_official(name or "default", argv) if found is None else _import_whole(found, name, argv)


def _import_whole(found: Importable, recipe: str, argv: list[str]) -> int:
    from ..policies.storage import save_policy

    prog = " ".join(["noisepilot import", recipe]).strip()
    default = Import(Path(), Path(), get_recipe(recipe).env if recipe else EnvRef())
    config = parse(Import, argv, prog, default)
    _require(config, "out")
    imported = found.load(config.env.spec() if config.env.id else None)
    save_policy(imported.policy, config.out, {"source": imported.source})
    print("\n".join(imported.said))
    _say_rest(imported.left, imported.policy, config.out)
    return 0


def _import_official(name: str, argv: list[str]) -> int:
    from ..policies.foreign.dppo import fill, read_official
    from ..policies.foreign.dppo_sizes import of_kind, said, sized
    from ..policies.storage import save_policy

    kind, argv = take_option(argv, "--kind", "diffusion")
    recipe = get_recipe(name)
    policy = recipe.kind(kind)
    path, prefix = (take_option(argv, option, "")[0] for option in ("--weights", "--prefix"))
    weights = read_official(Path(path), prefix) if path else None
    default = ImportOfficial(policy=of_kind(policy, weights) if weights else policy, env=recipe.env)
    config = parse(ImportOfficial, argv, f"noisepilot import {name} --kind {kind}", default)
    _require(config, "weights", "normalization", "out")
    weights = weights or read_official(config.weights, config.prefix)
    if not config.env.id:
        raise UserError("import needs an environment: choose a recipe that has one (`noisepilot list`), or give --env")
    spec = config.env.spec()
    shape = sized(config.policy, weights, spec.obs, spec.action.dim)
    policy = fill(shape.build(shape.spec_for(spec)), weights, config.normalization, config.finetune_steps)
    save_policy(policy, config.out, {"source": f"official weights, {config.weights.name}, {weights.prefix}*"})
    print("\n".join([f"weights: {weights.prefix}*", *said(policy)]))
    _say_rest(weights.left, policy, config.out)
    return 0


def _require(config: object, *names: str) -> None:
    for missing in names:
        if getattr(config, missing) == Path():
            raise UserError(f"--{missing} is missing")


def _say_rest(left: Mapping[str, int], policy: Policy, out: Path) -> None:
    """What stayed behind, and what came of it."""
    for group, count in sorted(left.items()):
        print(f"left out: {group} ({count} tensors)")
    spec = policy.spec
    seen = ", ".join(f"{name} {array.shape}" for name, array in spec.obs.items())
    print(f"sees {seen}; acts {spec.action.shape}; " + (f"made for {spec.env}" if spec.env else "of no environment"))
    print(f"policy: {out}")
