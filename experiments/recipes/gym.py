"""Gymnasium locomotion, with the official DPPO settings (HEAD of its repository)."""

from __future__ import annotations

from dataclasses import replace

from ...algos.bc import BC
from ...algos.dppo import DPPO
from ...algos.dsrl import DSRL, DSRLSAC
from ...policies.noise_space import NoiseSpace
from ...policies.sampler import Sampler
from ..env_ref import EnvRef
from ..recipe import Budget, Recipe

LOCOMOTION = Recipe(bc=BC(pad=False), algos={"dppo": DPPO()})
HOPPER = replace(
    LOCOMOTION,
    env=EnvRef("Hopper-v5"),
    # A decision pays about 12, a thousand steps 3000: without the scale the critics take longer to reach such values
    # than the whole run.
    algos={
        "dppo": DPPO(),
        "dsrl-na": DSRL(warmup=2_000, utd=1.0, gamma=0.98, alpha=0.1, reward_scale=0.02),
        # One noise for all four actions: with twelve numbers to choose, returns swung between evaluations.
        "dsrl-sac": DSRLSAC(
            warmup=2_000,
            utd=1.0,
            gamma=0.98,
            alpha=0.1,
            reward_scale=0.02,
            space=NoiseSpace(bound=1.5, kind="repeat"),
        ),
    },
    budgets=dict.fromkeys(
        ("dsrl-na", "dsrl-sac"), Budget(num_envs=8, decisions=250, iterations=19, eval_every=5, eval_episodes=100)
    ),
)

RECIPES = {
    "default": Recipe(),
    "hopper": HOPPER,
    "walker2d": replace(LOCOMOTION, env=EnvRef("Walker2d-v5")),
    "halfcheetah": replace(LOCOMOTION, env=EnvRef("HalfCheetah-v5")),
    "ant": replace(LOCOMOTION, env=EnvRef("Ant-v5")),
    "hopper-ddim": replace(
        HOPPER,
        policy=replace(HOPPER.policy, sampler=Sampler(steps=5, eta=0.0)),
        algos={"dppo": DPPO(finetune_steps=5)},
    ),
}
