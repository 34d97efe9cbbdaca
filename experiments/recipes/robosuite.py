"""robosuite's Lift from the scripted expert; chunks of four actions as in DPPO's robomimic settings."""

from __future__ import annotations

from dataclasses import replace

from ...algos.dppo import DPPO
from ...algos.dsrl import DSRL, DSRLSAC
from ...policies.noise_space import NoiseSpace
from ..env_ref import EnvRef
from ..recipe import Budget
from .metaworld import METAWORLD

# The expert takes about 26 steps, people about 50.
KEYWORDS = {"reward_type": "penalty", "max_episode_steps": 100}
# A decision of four actions pays -4 until success: scaled to -1, values lie between -25 and 0.
STEERED = {"warmup": 500, "utd": 1.0, "gamma": 0.98, "alpha": 0.1, "reward_scale": 0.25}
SPACE = NoiseSpace("repeat", bound=1.5)
EXPERIENCE = Budget(num_envs=4, decisions=125, iterations=16, eval_every=4, eval_episodes=50)

LIFT = replace(
    METAWORLD,
    env=EnvRef("robosuite/Lift", KEYWORDS),
    policy=replace(METAWORLD.policy, horizon=4, n_action_steps=4),
    algos={
        "dppo": DPPO(finetune_steps=5),
        "dsrl-na": DSRL(**STEERED, space=SPACE),
        "dsrl-sac": DSRLSAC(**STEERED, space=SPACE),
    },
    budgets={"dsrl-na": EXPERIENCE, "dsrl-sac": EXPERIENCE},
)

RECIPES = {"lift": LIFT}
