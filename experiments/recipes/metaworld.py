"""Meta-World from its scripted experts; one recipe for all tasks: `--env metaworld/<task>-v3`."""

from __future__ import annotations

from ...algos.bc import BC
from ...algos.distill import Distill
from ...algos.dppo import DPPO
from ...algos.dsrl import DSRL, DSRLSAC
from ...policies.network import MLP
from ...policies.noise_space import NoiseSpace
from ...policies.path import CosinePath
from ...policies.policy import PolicyConfig
from ...policies.sampler import Sampler
from ..env_ref import EnvRef
from ..recipe import Budget, Recipe

# Experts take 30 to 130 steps; Meta-World's own limit of 500 costs experience where an episode has failed long before.
KEYWORDS = {"reward_type": "penalty", "terminate_on_success": True, "max_episode_steps": 200}
# A decision of eight actions pays -8 until success: scaled to -1, values lie between -25 and 0.
STEERED = {"warmup": 1_000, "utd": 1.0, "gamma": 0.98, "alpha": 0.1, "reward_scale": 0.125}
SPACE = NoiseSpace("repeat", bound=1.5)
EXPERIENCE = Budget(num_envs=8, decisions=125, iterations=16, eval_every=4, eval_episodes=50)

METAWORLD = Recipe(
    env=EnvRef("metaworld/reach-v3", KEYWORDS),
    policy=PolicyConfig(
        network=MLP(hidden=(256, 256, 256)),
        path=CosinePath(20),
        sampler=Sampler(steps=5, eta=0.0),
        horizon=8,
        n_action_steps=8,
    ),
    bc=BC(grad_steps=10_000, batch=256),
    algos={
        "dppo": DPPO(finetune_steps=5),
        "dsrl-na": DSRL(**STEERED, space=SPACE),
        "dsrl-sac": DSRLSAC(**STEERED, space=SPACE),
    },
    budget=Budget(num_envs=40, decisions=25, iterations=40, eval_every=10, eval_episodes=50),
    budgets={"dsrl-na": EXPERIENCE, "dsrl-sac": EXPERIENCE},
    distill=Distill(fit=BC(grad_steps=5_000, batch=512, ema_decay=0.99)),
)

RECIPES = {"metaworld": METAWORLD}
