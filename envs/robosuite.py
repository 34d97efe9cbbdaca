"""robosuite's manipulation tasks as robomimic's data sets have them: Lift, Can, Square, ToolHang, Transport.

Zhu et al. 2020, https://arxiv.org/abs/2009.12293; Mandlekar et al. 2021, https://arxiv.org/abs/2108.03298.
An arm (Transport: two) is moved by operational-space control, 20 actions per second. It runs in worker
processes; this module is both the parent's side and the worker's. `robosuite_build.py` knows the versions.

A arms, Q size of the physics state: time, positions, velocities, as robomimic's `states` hold them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ..errors import UserError, unknown
from .keywords import build_task
from .remote import RemoteCore, make_remote
from .robosuite_build import OURS, STEP, actions, build, osc, place, quicken, read_env_args, reseed
from .robosuite_demos import Demonstrations
from .robosuite_expert import act
from .robosuite_pictures import Pictures
from .sparse import SPARSE, sparse_reward
from .suited import require

ARMS = {"TwoArmTransport": 2}
"""task -> arms, where not one"""
REWARDS = ("dense", *SPARSE)
UNITS = {f"robot{arm}_eef_pos": "m" for arm in (0, 1)} | {f"robot{arm}_gripper_qpos": "m" for arm in (0, 1)}
PARTS = ("eef_pos", "eef_quat", "gripper_qpos")
"""what is observed of each arm, m and xyzw"""
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Robosuite:
    """Keywords of a task of robosuite."""

    task: str = "Lift"
    """robosuite's name of it, which the id implies"""
    controller: str = "OSC_POSE"
    """OSC_POSE or OSC_POSITION"""
    delta: bool = True
    """actions are movements, 1 being 0.05 m or 0.5 rad; otherwise places (m) and axis-angles (rad) in the world"""
    reward_type: str = "success"
    """dense: robosuite's shaped reward; success, penalty: see `sparse.py`"""
    terminate_on_success: bool = True
    """end the episode with the first success"""
    cameras: Names | None = None
    """cameras whose pictures are observed, as `images.<camera>`; None: what `env_args` says, else none"""
    image_height: int = 84
    image_width: int = 84
    effects: bool = True
    """draw shadows and reflections, as published data sets do; without them drawing is two to three times faster"""
    env_args: str = ""
    """robomimic's description of a data set's environment: JSON, a file of it, or the data set (`.hdf5`)"""
    init_states: str = ""
    """a data set (`.hdf5`): episode i starts in the state in which its demonstration i modulo their number did"""

    def __post_init__(self) -> None:
        if self.controller not in STEP:
            raise unknown("controller of robosuite", self.controller, STEP)
        if self.reward_type not in REWARDS:
            raise unknown("reward_type of robosuite", self.reward_type, REWARDS)

    def simulator(self) -> Any:
        """Robosuite's environment."""
        shaped = {"reward_shaping": self.reward_type == "dense"}
        if not self.env_args:
            count = ARMS.get(self.task, 1)
            control = osc(self.controller, self.delta)
            plain = {"robots": ["Panda"] * count, "controller_configs": control, "control_freq": 20}
            return build(self.task, {**plain, **shaped})
        stored = read_env_args(self.env_args)
        if stored["env_name"] != self.task:
            raise UserError(f"env_args describes {stored['env_name']}, not {self.task}: choose the id it belongs to")
        keywords = {name: value for name, value in stored.get("env_kwargs", {}).items() if name not in OURS}
        return build(self.task, {**keywords, **shaped}, str(stored.get("env_version", "")))

    def pictures(self) -> dict[str, tuple[int, int]]:
        """Observed cameras, and the width and height of their pictures."""
        stored = read_env_args(self.env_args).get("env_kwargs", {}) if self.env_args else {}
        if self.cameras is not None or not stored.get("use_camera_obs"):
            return dict.fromkeys(self.cameras or (), (self.image_width, self.image_height))
        names = listed(stored["camera_names"], 1)
        sizes = zip(*(listed(stored[f"camera_{side}s"], len(names)) for side in ("width", "height")), strict=True)
        return dict(zip(names, sizes, strict=True))

    def relabel(self, obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Observations and outcomes of recorded simulator states (T, Q) (see `Relabels`); nothing without them."""
        if "sim_state" not in obs:
            return {}
        env = Manipulation(self)
        try:
            rows = [env.told(state) for state in obs["sim_state"]]
        finally:
            env.close()
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def listed(value: Any, count: int) -> list[Any]:
    """Robosuite takes one value for all or a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


class Manipulation(gym.Env):
    """One task in one process. Observations: `object`, then `PARTS` of each arm, then pictures."""

    def __init__(self, task: Robosuite) -> None:
        self.task = task
        np.random.seed(0)  # robosuite draws while it builds; what is drawn here is never played
        self.simulator = task.simulator()
        self.cameras = task.pictures()
        self.camera = Pictures(task.effects)
        self.demos = Demonstrations(task.init_states) if task.init_states else None
        self.control_hz = float(self.simulator.control_freq)
        names, unit, self.action_space = actions(self.simulator)
        self.names, self.units = {"action": names}, {"action": unit} | UNITS
        self.observation_space = spaces_of(self._observe(self.simulator._get_observations(force_update=True)))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new episode, drawn from the seed alone, as a demonstration began, or at `options["physics"]` (Q,)."""
        seed = 0 if seed is None else seed
        reseed(self.simulator, seed)
        seen = self.simulator.reset()
        quicken(self.simulator)
        physics = (options or {}).get("physics")
        if physics is None and self.demos is not None:
            physics = self.demos.start(seed)
        if physics is not None:
            seen = place(self.simulator, physics)
        return self._observe(seen), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action of a twentieth of a second."""
        seen, reward, _, _ = self.simulator.step(np.asarray(action, np.float64))
        success = bool(self.simulator._check_success())
        return self._observe(seen), *self._judge(reward, success), False, {"success": success}

    def told(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """What is observed in a state (Q,), and the outcome of having come there."""
        seen = self._observe(place(self.simulator, state))
        pictures = {f"images.{name}": picture for name, picture in seen.pop("images", {}).items()}
        success = bool(self.simulator._check_success())
        reward, terminated = self._judge(self.simulator.reward(None), success)
        outcome = {"reward": np.float32(reward), "terminated": np.bool_(terminated), "success": np.float32(success)}
        return {**seen, **pictures, **outcome}

    def expert(self) -> np.ndarray:
        """What the scripted expert does now, (A,)."""
        return act(self.task, self.simulator._get_observations(), len(self.names["action"]))

    def physics(self) -> np.ndarray:
        """Time, positions and velocities, (Q,)."""
        return self.simulator.sim.get_state().flatten()

    def render(self) -> np.ndarray:
        """The scene as robomimic shows it."""
        return self.camera.draw(self.simulator.sim, "agentview", 640, 480)

    def close(self) -> None:
        """Free the renderers."""
        self.camera.close()
        self.simulator.close()

    def _judge(self, reward: float, success: bool) -> tuple[float, bool]:
        """The reward and the end that the keywords ask for, of robosuite's reward."""
        if self.task.reward_type != "dense":
            reward = float(sparse_reward(self.task.reward_type, np.asarray(success)))
        return float(reward), success and self.task.terminate_on_success

    def _observe(self, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
        named = {"object": np.asarray(seen["object-state"], np.float64)}
        for arm in range(len(self.simulator.robots)):
            named |= {f"robot{arm}_{part}": np.asarray(seen[f"robot{arm}_{part}"], np.float64) for part in PARTS}
        drawn = {name: self.camera.draw(self.simulator.sim, name, *size) for name, size in self.cameras.items()}
        return {**named, "images": drawn} if drawn else named


def spaces_of(obs: Mapping[str, Any]) -> gym.Space:
    """The space of an observation."""
    found: dict[str, spaces.Space] = {}
    for name, value in obs.items():
        if isinstance(value, Mapping):
            found[name] = spaces_of(value)
        elif value.dtype == np.uint8:
            found[name] = spaces.Box(0, 255, value.shape, np.uint8)
        else:
            found[name] = spaces.Box(-np.inf, np.inf, value.shape, np.float64)
    return spaces.Dict(found)


def open_robosuite(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    return Manipulation(build_task(Robosuite, "robosuite", keywords, {}))


def make_robosuite(task: Robosuite, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    require("robosuite", facts["id"])
    keywords = asdict(task)
    if task.env_args:  # the words themselves: files move
        keywords["env_args"] = json.dumps(read_env_args(task.env_args))
        facts["kwargs"] = {**facts["kwargs"], "env_args": keywords["env_args"]}
    return make_remote(f"{__name__}:{open_robosuite.__name__}", num_envs, keywords, facts)
