"""The verb `import`: official DPPO or ReinFlow weights, as plain arrays, become a policy folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..policies.policy import PolicyConfig
from .cli import parse, take_option, take_positional
from .recipe import get_recipe


@dataclass(frozen=True)
class Import:
    """Weights and normalisation, and the policy that they fill."""

    weights: Path = Path()
    """.npz of arrays under the official parameter names"""
    normalization: Path = Path()
    """.npz with obs_min, obs_max, action_min, action_max"""
    out: Path = Path()
    """policy folder to write"""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    prefix: str = "ema/network."
    """what precedes the official names: the averaged weights, or `model/network.`"""


def import_weights(argv: list[str]) -> int:
    """`noisepilot import RECIPE [--kind flow] --weights W.npz --normalization N.npz --out FOLDER`."""
    from ..envs import make_core
    from ..policies.official_weights import load_official_weights
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
    spec = make_core(recipe.env.id, **recipe.env.kwargs).spec
    policy = config.policy.build(config.policy.spec_for(spec))
    load_official_weights(policy, config.weights, config.normalization, config.prefix)
    save_policy(policy, config.out, {"source": f"official weights, {config.weights.name}"})
    print(f"policy: {config.out}")
    return 0
