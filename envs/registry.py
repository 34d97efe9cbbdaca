"""Which environments there are, what runs them, and how to make one. Backends are imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from .core import Core
from .keywords import build_task, split_limit
from .maze import MAPS, named_map

if TYPE_CHECKING:
    from .vector import TensorEnv

Backend = Literal["rollout", "threads", "worker"]


@dataclass(frozen=True)
class Entry:
    """An environment with an adapter of its own."""

    backend: Backend
    task: str
    """dataclass of its keywords, as `module:Class` of this folder"""
    make: str = "mujoco_core:make_mujoco"
    """what builds a Core from that, as `module:function`"""
    max_steps: int = 1000
    reference: tuple[float, float] | None = None
    """returns of a random and an expert policy (D4RL's infos.py)"""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """keywords that the id implies"""

    def build_task(self, env: str, kwargs: Mapping[str, Any]) -> tuple[Any, int]:
        """The task that keywords ask for, and its time limit."""
        limit, rest = split_limit(env, kwargs, self.max_steps)
        return build_task(find(self.task), env, rest, self.preset), limit


def find(path: str) -> Any:
    """What `module:name` of this folder names."""
    module, _, name = path.partition(":")
    return getattr(import_module(f".{module}", __package__), name)


def maze_entries() -> dict[str, Entry]:
    """PointMaze in every map, with both rewards."""
    return {
        f"PointMaze_{name}{suffix}-v3": Entry(
            "rollout",
            task="pointmaze:MazeTask",
            make="pointmaze:make_pointmaze",
            max_steps={"Medium": 600, "Large": 800}.get(name.partition("_")[0], 300),
            preset={"maze_map": named_map(name), "reward_type": reward},
        )
        for name in MAPS
        for suffix, reward in (("", "sparse"), ("Dense", "dense"))
    }


def robosuite_entries() -> dict[str, Entry]:
    """Robosuite's tasks; time limits as robomimic evaluates what proficient humans demonstrated."""
    tasks = {
        "Lift": ("Lift", 400),
        "Can": ("PickPlaceCan", 400),
        "Square": ("NutAssemblySquare", 400),
        "ToolHang": ("ToolHang", 700),
        "Transport": ("TwoArmTransport", 700),
    }
    path = ("robosuite:Robosuite", "robosuite:make_robosuite")
    return {
        f"robosuite/{name}": Entry("worker", *path, max_steps=limit, preset={"task": task})
        for name, (task, limit) in tasks.items()
    }


TABLE = {
    "Hopper-v5": Entry("rollout", "locomotion:Hopper", reference=(-20.272305, 3234.3)),
    "HalfCheetah-v5": Entry("rollout", "locomotion:HalfCheetah", reference=(-280.178953, 12135.0)),
    "Walker2d-v5": Entry("rollout", "locomotion:Walker2d", reference=(1.629008, 4592.3)),
    "Swimmer-v5": Entry("rollout", "locomotion:Swimmer"),
    "InvertedPendulum-v5": Entry("rollout", "classic:InvertedPendulum"),
    "Ant-v5": Entry("threads", "legged:Ant", reference=(-325.6, 3879.7)),
    "Humanoid-v5": Entry("threads", "legged:Humanoid"),
    "Reacher-v5": Entry("threads", "classic:Reacher", max_steps=50),
    "Pusher-v5": Entry("threads", "classic:Pusher", max_steps=100),
    "InvertedDoublePendulum-v5": Entry("threads", "classic:InvertedDoublePendulum"),
    **maze_entries(),
    "AdroitHandDoor-v1": Entry("threads", "adroit:Door", "adroit:make_door", 200),
    "AdroitHandDoorSparse-v1": Entry(
        "threads", "adroit:Door", "adroit:make_door", 200, preset={"reward_type": "sparse"}
    ),
    "gym_pusht/PushT-v0": Entry("worker", "pusht:PushT", "pusht:make_pusht", 300),
    **robosuite_entries(),
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
        return find("remote:make_remote")(env, num_envs, kwargs)
    task, limit = entry.build_task(env, kwargs)
    return find(entry.make)(task, num_envs, id=env, max_steps=limit, reference=entry.reference, kwargs=dict(kwargs))


def make_task(env: str, kwargs: Mapping[str, Any]) -> Any:
    """The keywords of an environment as its adapter understands them; None where it has no adapter."""
    return TABLE[env].build_task(env, kwargs)[0] if env in TABLE else None


def make(env: str, num_envs: int = 1, device: str = "cpu", **kwargs: Any) -> TensorEnv:
    """Make `num_envs` environments that take and give tensors on `device`; otherwise as `make_core`."""
    from .vector import TensorEnv

    return TensorEnv(make_core(env, num_envs, **kwargs), device)


def list_envs() -> dict[str, Backend]:
    """Every environment that can be made by id, and what runs it; of Gymnasium's own the newest versions."""
    from .foreign import newest_ids

    foreign: dict[str, Backend] = {env: "worker" for env in newest_ids() if env not in TABLE}
    return {**foreign, **{env: entry.backend for env, entry in TABLE.items()}}
