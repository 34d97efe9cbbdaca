"""Gymnasium locomotion, with the official DPPO settings (HEAD of its repository)."""

from __future__ import annotations

from dataclasses import replace

from ...algos.bc import BC
from ...algos.dppo import DPPO
from ...policies.sampler import Sampler
from ..env_ref import EnvRef
from ..recipe import Recipe

HOPPER = Recipe(env=EnvRef("Hopper-v5"), bc=BC(pad=False), algos={"dppo": DPPO()})

RECIPES = {
    "default": Recipe(),
    "hopper": HOPPER,
    "walker2d": replace(HOPPER, env=EnvRef("Walker2d-v5")),
    "halfcheetah": replace(HOPPER, env=EnvRef("HalfCheetah-v5")),
    "ant": replace(HOPPER, env=EnvRef("Ant-v5")),
    "hopper-ddim": replace(
        HOPPER,
        policy=replace(HOPPER.policy, sampler=Sampler(steps=5, eta=0.0)),
        algos={"dppo": DPPO(finetune_steps=5)},
    ),
}
