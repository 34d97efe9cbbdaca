"""PointMaze: reach a goal that lies around corners; the demo's task, small enough for a laptop."""

from __future__ import annotations

from dataclasses import replace

from ...algos.bc import BC
from ...algos.distill import Distill
from ...algos.dppo import DPPO
from ...policies.network import MLP
from ...policies.path import CosinePath
from ...policies.policy import PolicyConfig
from ...policies.sampler import Sampler
from ..env_ref import EnvRef
from ..recipe import Budget, Recipe

MEDIUM = Recipe(
    env=EnvRef("PointMaze_Medium-v3", {"continuing_task": False}),
    policy=PolicyConfig(
        network=MLP(hidden=(256, 256, 256)),
        path=CosinePath(20),
        sampler=Sampler(steps=5, eta=0.0),
        horizon=8,
        n_action_steps=8,
    ),
    bc=BC(grad_steps=5_000, batch=256),
    # Many small steps: with a reward this sparse it is the critic that decides how fast the policy learns.
    algos={"dppo": DPPO(finetune_steps=5, clip=0.02, epochs=6, minibatch=2_400)},
    budget=Budget(num_envs=64, decisions=75, iterations=50, eval_every=10, eval_episodes=200),
    distill=Distill(fit=BC(grad_steps=5_000, batch=512, ema_decay=0.99)),
)

RECIPES = {
    "pointmaze-medium": MEDIUM,
    "pointmaze-umaze": replace(MEDIUM, env=EnvRef("PointMaze_UMaze-v3", {"continuing_task": False})),
    "pointmaze-large": replace(MEDIUM, env=EnvRef("PointMaze_Large-v3", {"continuing_task": False})),
}
