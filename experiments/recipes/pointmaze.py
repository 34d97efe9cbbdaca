"""PointMaze: reach a goal that lies around corners; the demo's task, small enough for a laptop."""

from __future__ import annotations

from dataclasses import replace

from ...algos.bc import BC
from ...algos.decorator import PolicyDecorator
from ...algos.distill import Distill
from ...algos.dppo import DPPO
from ...algos.dql import METHODS
from ...algos.dsrl import DSRL, DSRLSAC
from ...algos.reinflow import NoiseMLP, ReinFlow
from ...policies.critic import QMLP
from ...policies.network import MLP
from ...policies.noise_space import NoiseSpace
from ...policies.path import CosinePath
from ...policies.policy import PolicyConfig
from ...policies.sampler import Sampler
from ..env_ref import EnvRef
from ..recipe import Budget, Recipe

_CRITIC = QMLP((256, 256, 256), "gelu", 2, "after")
_STUDENT = MLP((256, 256, 256), time_dim=0, activation="gelu", residual=False)
_CHUNKS = Budget(num_envs=16, decisions=75, iterations=15, eval_every=5, eval_episodes=200)

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
    algos={
        "dppo": DPPO(finetune_steps=5, clip=0.02, epochs=6, minibatch=2_400),
        # Success pays once: the entropy of a long episode must not be worth more than its end.
        "dsrl-na": DSRL(warmup=1_200, utd=1.0, alpha=0.02, entropy_in_backup=False),
        "dsrl-sac": DSRLSAC(
            warmup=1_200, utd=1.0, alpha=0.01, learn_alpha=False, entropy_in_backup=False, space=NoiseSpace(bound=1.0)
        ),
        # Between these bounds of noise a step's log-prob exceeds the official range of 1, where it has no gradient.
        "reinflow": ReinFlow(
            clip=0.02,
            epochs=6,
            minibatch=600,
            repeats=1,
            actor_lr=4e-4,
            actor_lr_min=2e-4,
            critic_lr=1e-3,
            critic_lr_min=None,
            critic_warmup=4,
            noise=NoiseMLP(min_std=0.1, max_std=0.2),
            entropy_coef=0.0,
            log_prob_range=(-10.0, 10.0),
        ),
        "fql": replace(METHODS["fql"], warmup=1_200, critic=_CRITIC, student=_STUDENT),
        "residual": PolicyDecorator(
            scale=0.3, gamma=0.995, alpha=0.02, entropy_in_backup=False, batch=256, warmup=5_000, explore_steps=20_000
        ),
    },
    budget=Budget(num_envs=64, decisions=75, iterations=50, eval_every=10, eval_episodes=200),
    budgets={"dsrl-na": _CHUNKS, "dsrl-sac": _CHUNKS, "fql": _CHUNKS, "residual": replace(_CHUNKS, decisions=600)},
    distill=Distill(fit=BC(grad_steps=5_000, batch=512, ema_decay=0.99)),
)

RECIPES = {
    "pointmaze-medium": MEDIUM,
    "pointmaze-umaze": replace(MEDIUM, env=EnvRef("PointMaze_UMaze-v3", {"continuing_task": False})),
    "pointmaze-large": replace(MEDIUM, env=EnvRef("PointMaze_Large-v3", {"continuing_task": False})),
}
