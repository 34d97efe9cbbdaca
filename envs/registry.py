"""Which environments there are, what runs them, and how to make one. Backends are imported when first used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from .keywords import build_task, split_limit
from .maze import MAPS, named_map

if TYPE_CHECKING:
    from .core import Core
    from .vector import TensorEnv

Backend = Literal["rollout", "threads", "maze", "worker"]


@dataclass(frozen=True)
class Entry:
    """An environment that runs in this process."""

    backend: Backend
    task: str
    """module of this folder and class in it, as `module:Class`"""
    max_steps: int = 1000
    reference: tuple[float, float] | None = None
    """returns of a random and an expert policy (D4RL's infos.py)"""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """keywords that the id implies"""

    def build(self, kwargs: Mapping[str, Any], env: str) -> tuple[Any, int]:
        """The task and its time limit."""
        module, _, name = self.task.partition(":")
        limit, rest = split_limit(env, kwargs, self.max_steps)
        return build_task(getattr(import_module(f".{module}", __package__), name), env, rest, self.preset), limit


def maze_entries() -> dict[str, Entry]:
    """PointMaze in every map, with both rewards."""
    return {
        f"PointMaze_{name}{suffix}-v3": Entry(
            "maze",
            "pointmaze:MazeTask",
            max_steps={"Medium": 600, "Large": 800}.get(name.partition("_")[0], 300),
            preset={"maze_map": named_map(name), "reward_type": reward},
        )
        for name in MAPS
        for suffix, reward in (("", "sparse"), ("Dense", "dense"))
    }


TABLE = {
    "Hopper-v5": Entry("rollout", "locomotion:Hopper", reference=(-20.272305, 3234.3)),
    "HalfCheetah-v5": Entry("rollout", "locomotion:HalfCheetah", reference=(-280.178953, 12135.0)),
    "Walker2d-v5": Entry("rollout", "locomotion:Walker2d", reference=(1.629008, 4592.3)),
    "Swimmer-v5": Entry("rollout", "locomotion:Swimmer"),
    "InvertedPendulum-v5": Entry("rollout", "locomotion:InvertedPendulum"),
    "Ant-v5": Entry("threads", "bodies:Ant", reference=(-325.6, 3879.7)),
    "Humanoid-v5": Entry("threads", "bodies:Humanoid"),
    "Reacher-v5": Entry("threads", "bodies:Reacher", max_steps=50),
    "Pusher-v5": Entry("threads", "bodies:Pusher", max_steps=100),
    "InvertedDoublePendulum-v5": Entry("threads", "bodies:InvertedDoublePendulum"),
    **maze_entries(),
}


def make_core(env: str, num_envs: int = 1, **kwargs: Any) -> Core:
    """Make `num_envs` environments behind the numpy protocol; imports no torch.

    Args:
        env: an id of `list_envs()`, any id registered with Gymnasium, or `package.module:factory`.
        num_envs: N, the number of slots.
        **kwargs: Gymnasium's keywords of that environment, and `max_episode_steps`.

    Raises:
        UserError: for an unknown id or keyword, or an environment that no policy of ours could act in.
    """
    if num_envs < 1:
        raise UserError(f"num_envs must be at least 1, got {num_envs}")
    entry = TABLE.get(env)
    if entry is None:
        raise UserError(f"unknown environment {env}")
    task, limit = entry.build(kwargs, env)
    if entry.backend == "maze":
        from .pointmaze import make_pointmaze

        return make_pointmaze(env, task, limit, num_envs, kwargs)
    from .mujoco_core import make_mujoco

    return make_mujoco(env, task, limit, num_envs, kwargs, entry.reference)


def make(env: str, num_envs: int = 1, device: str = "cpu", **kwargs: Any) -> TensorEnv:
    """Make `num_envs` environments that take and give tensors on `device`; otherwise as `make_core`."""
    from .vector import TensorEnv

    return TensorEnv(make_core(env, num_envs, **kwargs), device)
