"""The verb `import`: official DPPO or ReinFlow weights become a policy folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..policies.policy import Policy, PolicyConfig
from .cli import parse, take_option, take_positional
from .recipe import get_recipe


@dataclass(frozen=True)
class Import:
    """Weights and normalisation, and the policy that they fill. Sizes are read off the weights."""

    weights: Path = Path()
    """a checkpoint of the official code (state_*.pt), or an .npz of arrays under the official names"""
    normalization: Path = Path()
    """.npz with obs_min, obs_max, action_min, action_max"""
    out: Path = Path()
    """policy folder to write"""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """what weights do not show: activation, path, sampler"""
    prefix: str = ""
    """what precedes the network's names, such as `model/network.`; empty: the tuned ones, else averages, else raw"""
    finetune_steps: int = 0
    """denoising steps that DPPO tuned (its ft_denoising_steps), of which its checkpoints say nothing"""


def import_weights(argv: list[str]) -> int:
    """`noisepilot import RECIPE [--kind flow] --weights state_200.pt --normalization N.npz --out FOLDER`."""
    from ..envs import make_core
    from ..policies.foreign.dppo_sizes import sized
    from ..policies.foreign.dppo import fill, read_official
    from ..policies.storage import save_policy

    name, argv = take_positional(argv, "default")
    kind, argv = take_option(argv, "--kind", "diffusion")
    recipe = get_recipe(name)
    config = parse(Import, argv, f"noisepilot import {name} --kind {kind}", Import(policy=recipe.kind(kind)))
    for missing in ("weights", "normalization", "out"):
        if getattr(config, missing) == Path():
            raise UserError(f"--{missing} is missing")
    if not recipe.env.id:
        raise UserError("import needs a recipe with an environment: see `noisepilot list`")
    weights = read_official(config.weights, config.prefix)
    spec = make_core(recipe.env.id, **recipe.env.kwargs).spec
    shape = sized(config.policy, weights, sum(array.dim for array in spec.obs.values()), spec.action.dim)
    policy = fill(shape.build(shape.spec_for(spec)), weights, config.normalization, config.finetune_steps)
    save_policy(policy, config.out, {"source": f"official weights, {config.weights.name}, {weights.prefix}*"})
    _say(policy, weights.prefix, weights.left, config.out)
    return 0


def _say(policy: Policy, prefix: str, left: dict[str, int], out: Path) -> None:
    """What was found, what the recipe had to say, and what stayed behind."""
    config = policy.config
    network = config.network
    print(f"weights: {prefix}*")
    print(
        f"read off their shapes: hidden {network.hidden}, condition_hidden {network.condition_hidden}, "
        f"time_dim {network.time_dim}, residual {network.residual}, combine {network.combine}, "
        f"horizon {config.horizon}, n_obs_steps {config.n_obs_steps}"
    )
    print(
        f"taken from the recipe: activation {network.activation}, {config.sampler.steps} steps of "
        f"eta {config.sampler.eta:g}, {type(config.path).__name__}, n_action_steps {config.n_action_steps}"
    )
    for group, count in sorted(left.items()):
        print(f"left out: {group} ({count} tensors)")
    print(f"policy: {out}")
