"""PushT: push a T-shaped block onto its outline, by gym-pusht. Chi et al. 2023, https://arxiv.org/abs/2303.04137.

Actions are where the pusher shall go, in pixels of a plane of 512; coverage is the share of the outline that
the block covers. It runs in worker processes; this module is both the parent's side and the worker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np

from ..errors import UserError, unknown
from .remote import RemoteCore, make_remote
from .sparse import SPARSE, sparse_reward

PICTURE = "image"
"""what gym-pusht calls `pixels`"""
COVERED = 0.95
"""coverage above which the block counts as in place"""
OBSERVATIONS = {
    "state": ("state",),
    "environment_state_agent_pos": ("environment_state", "agent_pos"),
    "pixels_agent_pos": (PICTURE, "agent_pos"),
}
"""`obs_type` -> names of the observations"""
REWARDS = ("coverage", *SPARSE)


@dataclass(frozen=True, kw_only=True)
class PushT:
    """Keywords of PushT."""

    obs_type: str = "state"
    """state (5,): pusher x, y, block x, y (pixels), angle in [0, 2 pi); environment_state_agent_pos: corners of
    the block (16,) and place of the pusher (2,); pixels_agent_pos: a picture (96, 96, 3) and the place of the pusher"""
    reward_type: str = "coverage"
    """coverage: share of the coverage that counts as success, at most 1; success, penalty: see `sparse.py`"""
    terminate_on_success: bool = True
    """end the episode where the block is in place"""

    def __post_init__(self) -> None:
        if self.obs_type not in OBSERVATIONS:
            raise unknown("obs_type of PushT", self.obs_type, OBSERVATIONS)
        if self.reward_type not in REWARDS:
            raise unknown("reward_type of PushT", self.reward_type, REWARDS)

    def outcome(self, coverage: np.ndarray) -> dict[str, np.ndarray]:
        """Reward, success and end of a coverage (...)."""
        success = coverage > COVERED
        sparse = self.reward_type != "coverage"
        reward = sparse_reward(self.reward_type, success) if sparse else np.clip(coverage / COVERED, 0.0, 1.0)
        return {
            "reward": reward.astype(np.float32),
            "success": success.astype(np.float32),
            "terminated": success & self.terminate_on_success,
            "coverage": coverage.astype(np.float32),
        }

    def relabel(self, obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Observations and outcomes of recorded states (T, 5) (see `Relabels`)."""
        if "state" not in obs:
            raise UserError(f"a PushT set needs the state of pusher and block: it has {', '.join(obs)}")
        env: Any = Judged(bare(self.obs_type), self)
        env.reset()
        rows = [look(env, state) for state in obs["state"].astype(np.float64)]
        coverage = np.array([covered for _, covered in rows])
        if self.obs_type == "state":
            return {"state": obs["state"], **self.outcome(coverage)}
        names = OBSERVATIONS[self.obs_type]
        told = {name: np.stack([seen[name] for seen, _ in rows]) for name in names}
        told = {name: value.astype(np.uint8 if name == PICTURE else np.float32) for name, value in told.items()}
        return told | self.outcome(coverage)


def look(env: Judged, state: np.ndarray) -> tuple[Any, float]:
    """Put pusher and block where a state (5,) says; the observation and the coverage there."""
    task: Any = env.unwrapped
    task.agent.position = state[:2].tolist()
    task.block.angle = float(state[4])  # turns about the centre of mass and so moves the block: before its place
    task.block.position = state[2:4].tolist()
    for body in (task.agent, task.block):
        task.space.reindex_shapes_for_body(body)  # pictures show shapes, which follow their body only then
    return env.observation(task.get_obs()), float(task._get_coverage())


class Judged(gym.ObservationWrapper):
    """gym-pusht with the reward and the end that keywords ask for, and our name for its picture."""

    signals = ("coverage",)

    def __init__(self, env: gym.Env, task: PushT) -> None:
        super().__init__(env)
        self.task = task
        if isinstance(env.observation_space, gym.spaces.Dict):
            self.observation_space = gym.spaces.Dict(self.observation(env.observation_space.spaces))

    def observation(self, observation: Any) -> Any:
        """Under our names."""
        if not isinstance(observation, dict):
            return observation
        return {PICTURE if name == "pixels" else name: value for name, value in observation.items()}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action, a tenth of a second."""
        obs, _, _, truncated, info = self.env.step(np.asarray(action, np.float64))
        found = self.task.outcome(np.asarray(info["coverage"]))
        info["success"] = bool(found["success"])
        return self.observation(obs), float(found["reward"]), bool(found["terminated"]), truncated, info


def bare(obs_type: str) -> gym.Env:
    """gym-pusht's environment without a time limit."""
    from gym_pusht.envs.pusht import PushTEnv

    return PushTEnv(obs_type=obs_type, render_mode="rgb_array")


def open_pusht(**keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    task = PushT(**keywords)
    return Judged(bare(task.obs_type), task)


def make_pusht(task: PushT, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    if find_spec("gym_pusht") is None:
        raise UserError(f"{facts['id']} needs gym-pusht: pip install 'noisepilot[pusht]'")
    return make_remote(f"{__name__}:{open_pusht.__name__}", num_envs, asdict(task), facts)
