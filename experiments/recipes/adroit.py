"""Adroit door, from 25 human demonstrations of which most do not quite open it, and hammer, from an expert."""

from __future__ import annotations

from dataclasses import replace

from ...algos.bc import BC
from ...algos.distill import Distill
from ...algos.dppo import DPPO
from ...algos.resip import ResiP
from ...policies.network import MLP
from ...policies.normal import NormalMLP
from ...policies.path import CosinePath
from ...policies.policy import PolicyConfig
from ...policies.sampler import Sampler
from ..env_ref import EnvRef
from ..recipe import Budget, Recipe

# The demonstrators took up to 300 steps; the environment's own limit is 200.
KEYWORDS = {"reward_type": "success", "terminate_on_success": True, "max_episode_steps": 400}

DOOR = Recipe(
    env=EnvRef("AdroitHandDoor-v1", KEYWORDS),
    policy=PolicyConfig(
        network=MLP(hidden=(512, 512, 512)),
        path=CosinePath(20),
        sampler=Sampler(steps=5, eta=0.0),
        horizon=4,
        n_action_steps=4,
    ),
    bc=BC(grad_steps=20_000, batch=256),
    algos={
        "dppo": DPPO(finetune_steps=5, clip=0.02, minibatch=5_000),
        # Half of an action's range to correct by: the clone hardly ever opens the door.
        "resip": ResiP(
            network=NormalMLP(log_std=-1.5, learn_std=True),
            scale=0.5,
            gamma=0.99,
            epochs=5,
            minibatch=2_000,
            critic_lr=1e-3,
            scale_rewards=True,
        ),
    },
    budget=Budget(num_envs=40, decisions=100, iterations=50, eval_every=10, eval_episodes=100),
    budgets={"resip": Budget(num_envs=40, decisions=300, iterations=100, eval_every=10, eval_episodes=100)},
    distill=Distill(fit=BC(grad_steps=5_000, batch=512, ema_decay=0.99)),
)

HAMMER = replace(
    DOOR,
    env=EnvRef("AdroitHandHammer-v1", {"reward_type": "penalty", "terminate_on_success": True}),
    policy=replace(DOOR.policy, network=MLP(hidden=(256, 256, 256))),
    bc=BC(grad_steps=15_000, batch=256),
)

RECIPES = {"adroit-door": DOOR, "adroit-hammer": HAMMER}
