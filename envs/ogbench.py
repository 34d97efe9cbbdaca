"""OGBench: goals to reach in mazes and on tables. Park et al. 2024, https://arxiv.org/abs/2410.20092.

`ogbench/<data set>-v0` observes the goal: a state in which the task is done; `ogbench/<data set>-singletask-v0` has
one task with its own reward. The experts are OGBench's reactive oracles, for cubes only, one cube after the other
from the lowest goal up.
"""
# pyright: reportAttributeAccessIssue=false
# pyright: reportMissingImports=false
# (the suite may be absent)

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from ..errors import UserError
from .remote import RemoteCore, make_remote
from .suited import Suited, SuiteTask, given, require

T = TypeVar("T")
ARM_HZ = 20.0
"""actions per second of the arm; mazes state theirs"""
TASKS = 5
"""of every environment"""
PLACED = 0.04
"""distance (m) within which a cube counts as in place"""
ABOVE = 0.16
"""height (m) from which the arm is clear of the cubes"""


@dataclass(frozen=True, kw_only=True)
class Bench(SuiteTask):
    """Keywords of OGBench."""

    env: str
    """OGBench's own id; the id says it"""
    task: int = 0
    """1 to 5; 0: drawn with every episode, or the default one of a single task"""
    terminate_on_success: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.task <= TASKS:
            raise UserError(f"task of OGBench is 0 (drawn) or 1 to {TASKS}, not {self.task}")

    @property
    def single(self) -> bool:
        """One task, with its own reward and without a goal."""
        return "singletask" in self.env


class Arena(Suited):
    """One environment, whose draws from numpy's global generator follow from the episode's seed."""

    def __init__(self, env: gym.Env, task: Bench) -> None:
        size = int(np.prod(env.observation_space.shape or ()))
        self.shapes = {"state": size} if task.single else {"state": size, "goal": size}
        self.options = {"task_id": task.task} if task.task and not task.single else {}
        self.kind = task.env
        self.goal = np.zeros(size)
        self.random = np.random.RandomState(0).get_state()
        self.oracle: Any = None
        self.cube = 0
        keep_action_space(env.unwrapped)
        super().__init__(env, task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        if seed is not None:
            self.random = np.random.RandomState(seed % 2**32).get_state()
            self.unwrapped.action_space.seed(seed)
        self.oracle = None
        obs, info = self._own(lambda: self.env.reset(seed=seed, options=dict(self.options)))
        self.goal = np.asarray(info["goal"], np.float64)
        return self.observe(obs, info), info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action."""
        return self._own(lambda: super(Arena, self).step(action))

    def look(self, obs: np.ndarray, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The state, and the one to reach."""
        found = {"state": np.asarray(obs, np.float64), "goal": self.goal}
        return {name: found[name] for name in self.shapes}

    def scene(self) -> tuple[Any, Any]:
        """MuJoCo's model and data."""
        inner = self.unwrapped
        return (inner._model, inner._data) if hasattr(inner, "_model") else (inner.model, inner.data)

    def expert(self) -> np.ndarray:
        """The oracle's action."""
        if not self.kind.startswith("cube"):
            raise UserError("OGBench's oracles are played for cubes only")
        return self._own(self._move)

    def _move(self) -> np.ndarray:
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

        info = self.unwrapped.compute_ob_info()
        clear = info["proprio/effector_pos"][2] > ABOVE
        if self.oracle is None or self.oracle.done or (clear and self._distance(self.cube, info) < PLACED):
            goals = self.unwrapped._data.mocap_pos[self.unwrapped._cube_target_mocap_ids]
            left = [i for i in np.argsort(goals[:, 2], kind="stable") if self._distance(i, info) >= PLACED]
            if self.oracle is None or left:
                self.cube = int(left[0]) if left else 0
                self.oracle = CubeMarkovOracle(env=self.unwrapped)
                self.oracle.reset(None, info)
        return np.clip(self.oracle.select_action(None, info | self._target()), -1.0, 1.0)

    def _distance(self, cube: int, info: Mapping[str, Any]) -> float:
        target = self.unwrapped._data.mocap_pos[self.unwrapped._cube_target_mocap_ids[cube]]
        return float(np.linalg.norm(info[f"privileged/block_{cube}_pos"] - target))

    def _target(self) -> dict[str, Any]:
        """What OGBench tells its oracles while it collects."""
        from ogbench.manipspace import lie

        data, body = self.unwrapped._data, self.unwrapped._cube_target_mocap_ids[self.cube]
        yaw = lie.SO3(wxyz=data.mocap_quat[body]).compute_yaw_radians()
        place = {"target_block_pos": data.mocap_pos[body].copy(), "target_block_yaw": np.array([yaw])}
        return {f"privileged/{name}": value for name, value in {"target_block": self.cube, **place}.items()}

    def _own(self, call: Callable[[], T]) -> T:
        """Lend the global generator this environment's state: slots of a worker share it."""
        others = np.random.get_state()
        np.random.set_state(self.random)
        try:
            return call()
        finally:
            self.random = np.random.get_state()
            np.random.set_state(others)


def keep_action_space(inner: Any) -> None:
    """Make a space that is built anew whenever it is asked for, and so never seeded, one and the same.

    OGBench samples actions from it while it resets: the goal's observation follows from them.
    """
    kept = inner.action_space
    if inner.action_space is not kept:
        kind = type(inner)
        inner.__class__ = type(kind.__name__, (kind,), {"action_space": property(lambda _: kept)})


def open_ogbench(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    import ogbench  # noqa: F401 (registers its environments)

    task = Bench(**given(keywords))
    name = task.env.replace("singletask", f"singletask-task{task.task}") if task.single and task.task else task.env
    further = {"terminate_at_goal": task.terminate_on_success}
    return Arena(gym.make(name, disable_env_checker=True, max_episode_steps=-1, **further), task)


def make_ogbench(task: Bench, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("ogbench", facts["id"])
    arm = task.env.startswith(("cube", "scene", "puzzle"))
    known = {"control_hz": ARM_HZ, **facts} if arm else facts
    return make_remote(f"{__name__}:{open_ogbench.__name__}", num_envs, asdict(task), known)
