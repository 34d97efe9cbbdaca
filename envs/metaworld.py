"""Meta-World: a Sawyer arm at a table, fifty tasks. Yu et al. 2019, https://arxiv.org/abs/1910.10897.

Goals and objects are drawn anew in every episode from its seed (Meta-World's own benchmarks draw fifty of them
once). The goal is observed. The expert is Meta-World's scripted policy of the task.
"""
# pyright: reportMissingImports=false
# (the suite may be absent)

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from .remote import RemoteCore, make_remote
from .suited import Suited, SuiteTask, given, require

CONTROL_HZ = 80.0
"""five physics steps of 2.5 ms per action"""
FRAME = ("hand_x", "hand_y", "hand_z", "gripper")
OBJECT = ("x", "y", "z", "qw", "qx", "qy", "qz")


@dataclass(frozen=True, kw_only=True)
class Sawyer(SuiteTask):
    """Keywords of Meta-World."""

    task: str
    """what to do; the id says it"""


def state_names() -> tuple[str, ...]:
    """The 39 numbers of a state: hand and two objects, the same one step before, the goal."""
    now = (*FRAME, *(f"object{i}_{part}" for i in (1, 2) for part in OBJECT))
    return (*now, *(f"previous_{name}" for name in now), "goal_x", "goal_y", "goal_z")


class Table(Suited):
    """One task; an episode's seed fixes where everything stands."""

    names: ClassVar = {"state": state_names(), "action": ("dx", "dy", "dz", "gripper")}
    units: ClassVar = {"state": "m", "action": "cm, 1 closes"}
    shapes: ClassVar = {"state": 39}

    def __init__(self, env: gym.Env, task: Sawyer, policy: Any) -> None:
        super().__init__(env, task)
        self.policy = policy
        self.state = np.zeros(39)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; Meta-World takes its seed apart from the reset."""
        if seed is not None:
            self.unwrapped.seed(seed)  # pyright: ignore[reportAttributeAccessIssue]
        obs, info = self.env.reset()
        return self.observe(obs, info), info | {"success": False}

    def look(self, obs: np.ndarray, info: Any) -> dict[str, np.ndarray]:
        """The state."""
        self.state = obs
        return {"state": obs}

    def expert(self) -> np.ndarray:
        """The scripted policy's action, within the limits."""
        return np.clip(self.policy.get_action(self.state), -1.0, 1.0)


def open_metaworld(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    task = Sawyer(**given(keywords))
    env: Any = ALL_V3_ENVIRONMENTS[task.task]()
    env._partially_observable = False
    vars(env).pop("sawyer_observation_space", None)  # kept from when the goal was hidden, it would clip it to zero
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env.max_path_length = 10**9  # the time limit is ours
    return Table(env, task, ENV_POLICY_MAP[task.task]())


def make_metaworld(task: Sawyer, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("metaworld", facts["id"])
    known = {"control_hz": CONTROL_HZ, **facts}
    return make_remote(f"{__name__}:{open_metaworld.__name__}", num_envs, asdict(task), known)
