"""Which environments there are, what runs them, and how to make one. Backends are imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from . import d4rl
from .core import Core
from .keywords import build_task, split_limit
from .maze import MAPS, named_map
from .suites import LIBERO, METAWORLD, ogbench_sets

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


def ogbench_entries() -> dict[str, Entry]:
    """OGBench's data sets as environments: with a goal to reach, and with one task and its reward."""
    return {
        f"ogbench/{name}{suffix}-v0": Entry(
            "worker", "ogbench:Bench", "ogbench:make_ogbench", limit, {"env": f"{env}{suffix}-v0"}
        )
        for name, (env, limit) in ogbench_sets().items()
        for suffix in ("", "-singletask")
    }


def antmaze_entries() -> dict[str, Entry]:
    """AntMaze in every map, with both rewards."""
    return {
        f"AntMaze_{name}{suffix}-v5": Entry(
            "worker",
            "antmaze:AntMaze",
            "antmaze:make_antmaze",
            700 if name == "UMaze" else 1000,
            {"maze_map": named_map(name), "reward_type": reward},
        )
        for name in MAPS
        for suffix, reward in (("", "sparse"), ("Dense", "dense"))
    }


def hand_entries() -> dict[str, Entry]:
    """The tasks of the Adroit hand that are not native."""
    return {
        f"AdroitHand{task}{suffix}-v1": Entry(
            "worker", "hand:Hand", "hand:make_hand", 200, {"task": task, "reward_type": reward}
        )
        for task in ("Hammer", "Pen", "Relocate")
        for suffix, reward in (("", "dense"), ("Sparse", "sparse"))
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


def libero_entries() -> dict[str, Entry]:
    """LIBERO's tasks, numbered as LIBERO does."""
    path = ("libero:Libero", "libero:make_libero")
    return {
        f"{suite.replace('_', '/')}/{number}": Entry("worker", *path, limit, {"suite": suite, "number": number})
        for suite, (count, limit) in LIBERO.items()
        for number in range(count)
    }


TABLE = {
    "Hopper-v5": Entry("rollout", "locomotion:Hopper"),
    "HalfCheetah-v5": Entry("rollout", "locomotion:HalfCheetah"),
    "Walker2d-v5": Entry("rollout", "locomotion:Walker2d"),
    "Swimmer-v5": Entry("rollout", "locomotion:Swimmer"),
    "InvertedPendulum-v5": Entry("rollout", "classic:InvertedPendulum"),
    "Ant-v5": Entry("threads", "legged:Ant"),
    "Humanoid-v5": Entry("threads", "legged:Humanoid"),
    "Reacher-v5": Entry("threads", "classic:Reacher", max_steps=50),
    "Pusher-v5": Entry("threads", "classic:Pusher", max_steps=100),
    "InvertedDoublePendulum-v5": Entry("threads", "classic:InvertedDoublePendulum"),
    **maze_entries(),
    "AdroitHandDoor-v1": Entry("threads", "adroit:Door", "adroit:make_door", 200),
    "AdroitHandDoorSparse-v1": Entry(
        "threads", "adroit:Door", "adroit:make_door", 200, preset={"reward_type": "sparse"}
    ),
    **hand_entries(),
    **antmaze_entries(),
    "FrankaKitchen-v1": Entry("worker", "kitchen:Kitchen", "kitchen:make_kitchen", 280),
    "gym_pusht/PushT-v0": Entry("worker", "pusht:PushT", "pusht:make_pusht", 300),
    **{
        f"metaworld/{task}-v3": Entry(
            "worker", "metaworld:Sawyer", "metaworld:make_metaworld", 500, {"task": f"{task}-v3"}
        )
        for task in METAWORLD
    },
    **ogbench_entries(),
    **{
        f"gym_aloha/Aloha{name}-v0": Entry("worker", "aloha:Aloha", "aloha:make_aloha", 300, {"task": task})
        for name, task in (("Insertion", "insertion"), ("TransferCube", "transfer_cube"))
    },
    **robosuite_entries(),
    **libero_entries(),
}


def make_core(env: str, num_envs: int = 1, **kwargs: Any) -> Core:
    """Make `num_envs` environments behind the numpy protocol; imports no torch.

    Args:
        env: an id of `list_envs()`, any id registered with Gymnasium, `package.module:factory`, or one of D4RL's
            names (`hopper-medium-v2`), which stands for an id and keywords.
        num_envs: N, the number of slots.
        **kwargs: Gymnasium's keywords of that environment, and `max_episode_steps`.

    Raises:
        UserError: for an unknown id or keyword, or an environment that no policy of ours could act in.
    """
    if num_envs < 1:
        raise UserError(f"num_envs must be at least 1, got {num_envs}")
    env, kwargs = d4rl.resolve(env, kwargs)
    known = {"reference": d4rl.reference(env, kwargs)}
    entry = TABLE.get(env)
    if entry is None:
        return find("remote:make_remote")(env, num_envs, kwargs, known)
    task, limit = entry.build_task(env, kwargs)
    return find(entry.make)(task, num_envs, id=env, max_steps=limit, kwargs=kwargs, **known)


def make_task(env: str, kwargs: Mapping[str, Any]) -> Any:
    """The keywords of an environment as its adapter understands them; None where it has no adapter."""
    env, kwargs = d4rl.resolve(env, kwargs)
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
