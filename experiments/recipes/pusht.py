"""PushT from its corners or from pictures: Diffusion Policy's windows of two observations and sixteen actions."""

from __future__ import annotations

from dataclasses import replace

from ...algos.bc import BC
from ...algos.distill import Distill
from ...algos.dppo import DPPO
from ...policies.network import MLP
from ...policies.path import CosinePath
from ...policies.policy import PolicyConfig
from ...policies.sampler import Sampler
from ...policies.unet import UNet
from ...policies.vision import ViT
from ..env_ref import EnvRef
from ..recipe import Budget, Recipe

PUSHT = Recipe(
    env=EnvRef("gym_pusht/PushT-v0", {"obs_type": "environment_state_agent_pos"}),
    policy=PolicyConfig(
        network=MLP(hidden=(512, 512, 512)),
        path=CosinePath(20),
        sampler=Sampler(steps=20),  # with eta 0 the largest coverage is lower, 0.59 against 0.68 after 30 000 steps
        horizon=16,
        n_action_steps=8,
        n_obs_steps=2,
    ),
    bc=BC(grad_steps=60_000, batch=256, lr_final=1e-5, ema_decay=0.999),
    algos={"dppo": DPPO(finetune_steps=10)},
    budget=Budget(num_envs=40, decisions=38, iterations=50, eval_every=10, eval_episodes=100),
    distill=Distill(fit=BC(grad_steps=10_000, batch=512, ema_decay=0.99)),
)

PIXELS = replace(
    PUSHT,
    env=EnvRef("gym_pusht/PushT-v0", {"obs_type": "pixels_agent_pos"}),
    policy=replace(PUSHT.policy, network=UNet(down_dims=(64, 128)), encoder=ViT()),
    bc=BC(grad_steps=8_000, batch=64, draws=2, lr=5e-4, lr_final=1e-5, ema_decay=0.99),
    algos={"dppo": DPPO(finetune_steps=5, minibatch=1_200, epochs=4)},
    budget=Budget(num_envs=16, decisions=38, iterations=20, eval_every=5, eval_episodes=50),
)

RECIPES = {"pusht": PUSHT, "pusht-pixels": PIXELS}
