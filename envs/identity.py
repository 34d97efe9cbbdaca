"""Whether two ids name one environment: data sets carry the id of where they were recorded.

Free of torch and simulators.
"""

from __future__ import annotations

import re

from . import d4rl
from .registry import TABLE

ENDING = re.compile(r"(_Diverse_GR?)?(?P<rewards>Dense|Sparse|-singletask)?(-v\d+)?$")
"""what follows the name: cells of start and goal in a maze, what is paid, the version"""
ROBOSUITE = {entry.preset["task"]: env for env, entry in TABLE.items() if env.startswith("robosuite/")}
"""robosuite's own names, as its files and robomimic's have them -> id"""


def known_as(name: str) -> str:
    """The id of an environment that goes by another name here: D4RL's and robosuite's names become ids."""
    found = d4rl.named(name)
    return found.env or name if found else ROBOSUITE.get(name, name)


def rewards_of(env: str) -> str:
    """What an id says of its rewards: `Dense`, `Sparse`, `-singletask` or nothing."""
    found = ENDING.search(env)
    return (found and found["rewards"]) or ""


def may_be_same(recorded: str, env: str) -> bool:
    """False where both ids are known and name different environments.

    Versions, rewards and starts may differ. What the code of `package.module:factory` makes is not known, but two
    such functions are two environments; nor is what names without a version or suite stand for.
    """
    ours, theirs = known_as(recorded), known_as(env)
    if (":" in ours) != (":" in theirs):
        return True
    ours, theirs = _name(ours), _name(theirs)
    return not ours or not theirs or ours == theirs


def _name(env: str) -> str:
    """The id without its ending; empty: the id does not tell."""
    simulated = str(TABLE[env].preset.get("env", env)) if env in TABLE else env  # OGBench's data sets share theirs
    name = simulated if ":" in env else ENDING.sub("", simulated)
    return name if env in TABLE or name != env or ":" in env or "/" in env else ""
