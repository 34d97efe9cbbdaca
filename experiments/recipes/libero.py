"""LIBERO's bowl on the plate from the scripted expert; other tasks: `--env libero/<suite>/<number>`."""

from __future__ import annotations

from dataclasses import replace

from ..env_ref import EnvRef
from .robosuite import LIFT

# The expert takes about 60 steps; LIBERO's own 300 cost experience where an episode has failed long before.
KEYWORDS = {"reward_type": "penalty", "max_episode_steps": 150}

LIBERO = replace(LIFT, env=EnvRef("libero/goal/8", KEYWORDS))

RECIPES = {"libero": LIBERO}
