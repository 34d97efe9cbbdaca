"""The suites that environments come from: what imports, what installs, and an environment to try each with.

Free of torch and simulators: `noisepilot envs` and the table of environments read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from . import isolated, libero_assets

MUJOCO = "mujoco>=3.3,<3.9"
"""holds back what suites would pull in: newer versions break most of them"""


@dataclass(frozen=True)
class Suite:
    """One suite."""

    module: str
    """what Python imports"""
    package: str
    """what pip calls it"""
    install: tuple[tuple[str, ...], ...]
    """arguments of `pip install`, one call after the other"""
    example: str = ""
    """an environment to try it with"""
    pictures: Mapping[str, Any] = field(default_factory=dict)
    """keywords that add a camera to the example; empty: it has none"""
    ids: str = ""
    """what its environments are called"""
    isolated: str = ""
    """name of the virtual environment of its own that it is installed into; empty: beside this Python"""
    assets: bool = False
    """its package lacks data that the installation brings"""

    @property
    def version(self) -> str:
        """The installed version; empty: it is not installed."""
        if self.isolated and (own := isolated.version(self.isolated, self.package)):
            return own
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""

    @property
    def lacks(self) -> str:
        """What is missing beside the package; empty: nothing."""
        return "its assets" if self.assets and not libero_assets.folder().is_dir() else ""

    def commands(self) -> list[str]:
        """What to type instead of `noisepilot envs install`."""
        pip = f"{isolated.interpreter(self.isolated)} -m pip" if self.isolated else "pip"
        calls = [" ".join(f"'{a}'" if set(a) & set("<>") else a for a in args) for args in self.install]
        venv = [" ".join(isolated.venv_command(self.isolated))] if self.isolated else []
        return venv + [f"{pip} install {call}" for call in calls]


ARMS = ("numba", "opencv-python-headless", "termcolor", "scipy", "pillow", MUJOCO)
"""what robosuite needs of others"""
SUITES = {
    "gymnasium": Suite("gymnasium", "gymnasium", (("gymnasium>=1.1", MUJOCO),), "Hopper-v5", ids="Hopper-v5, Ant-v5"),
    "robotics": Suite(
        "gymnasium_robotics",
        "gymnasium-robotics",
        (("gymnasium-robotics>=1.4", MUJOCO),),
        "FrankaKitchen-v1",
        {},
        "FrankaKitchen-v1, AntMaze_*-v5, AdroitHand*-v1, Fetch*-v4",
    ),
    "pusht": Suite("gym_pusht", "gym-pusht", (("gym-pusht>=0.1.8",),), "gym_pusht/PushT-v0", ids="gym_pusht/PushT-v0"),
    "metaworld": Suite(
        "metaworld",
        "metaworld",
        (
            ("scipy", "imageio", "packaging", MUJOCO),
            ("--no-deps", "metaworld==3.1.1"),
        ),  # it asks for mujoco 3.3.0 alone
        "metaworld/reach-v3",
        {"cameras": ["corner2"]},
        "metaworld/<task>-v3",
    ),
    "ogbench": Suite(
        "ogbench",
        "ogbench",
        (("ogbench>=1.2", MUJOCO),),
        "ogbench/cube-single-play-v0",
        {"cameras": ["front_pixels"]},
        "ogbench/<data set>-v0",
    ),
    "aloha": Suite(
        "gym_aloha",
        "gym-aloha",
        (("gym-aloha>=0.1.1", MUJOCO),),
        "gym_aloha/AlohaTransferCube-v0",
        {"cameras": ["top"]},
        "gym_aloha/Aloha*-v0",
    ),
    "robosuite": Suite(
        "robosuite",
        "robosuite",
        (ARMS, ("--no-deps", "robosuite==1.4.1")),
        "robosuite/Lift",
        {"cameras": ["agentview"]},
        "robosuite/Lift, Can, Square, ToolHang, Transport",
    ),
    "libero": Suite(
        "libero",
        "hf-libero",
        (
            (*ARMS, "gymnasium>=1.1", "h5py", "easydict", "future", "pyyaml", "tqdm", "matplotlib"),
            ("--no-deps", "bddl==1.0.1", "robosuite==1.4.1", "hf-libero==0.1.4"),
        ),
        "libero/goal/7",
        {"cameras": ["agentview"]},
        "libero/<suite>/<number>",
        isolated="libero",
        assets=True,
    ),
}

# fmt: off
METAWORLD = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press", "button-press-topdown",
    "button-press-topdown-wall", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn",
    "disassemble", "door-close", "door-lock", "door-open", "door-unlock", "drawer-close", "drawer-open",
    "faucet-close", "faucet-open", "hammer", "hand-insert", "handle-press", "handle-press-side", "handle-pull",
    "handle-pull-side", "lever-pull", "peg-insert-side", "peg-unplug-side", "pick-out-of-hole", "pick-place",
    "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side", "plate-slide-side", "push",
    "push-back", "push-wall", "reach", "reach-wall", "shelf-place", "soccer", "stick-pull", "stick-push", "sweep",
    "sweep-into", "window-close", "window-open",
)
# fmt: on
"""Meta-World's fifty tasks, without their version"""

LIBERO = {
    "libero_spatial": (10, 220),
    "libero_object": (10, 280),
    "libero_goal": (10, 300),
    "libero_10": (10, 520),
    "libero_90": (90, 400),
}
"""LIBERO's suites: how many tasks, and steps of an episode as they are published"""

MAZES = ("medium", "large", "giant", "teleport")
OGBENCH = {
    "cube-single": 200,
    "cube-double": 500,
    "cube-triple": 1000,
    "cube-quadruple": 1000,
    "scene": 750,
    "puzzle-3x3": 500,
    "puzzle-4x4": 500,
    "puzzle-4x5": 1000,
    "puzzle-4x6": 1000,
    **{
        f"{robot}-{size}": 1000
        for robot in ("pointmaze", "antmaze")
        for size in ("medium", "large", "giant", "teleport")
    },
    "humanoidmaze-medium": 2000,
    "humanoidmaze-large": 2000,
    "humanoidmaze-giant": 4000,
    "antsoccer-arena": 1000,
    "antsoccer-medium": 1000,
}
"""OGBench's environments with states, and their time limits"""


def ogbench_sets() -> dict[str, tuple[str, int]]:
    """OGBench's data sets: name without version -> its environment, time limit."""
    sets = {}
    for env, limit in OGBENCH.items():
        maze = "maze" in env or "soccer" in env
        kinds = ("navigate", "stitch") if maze else ("play", "noisy")
        if env.startswith("antmaze") and "giant" not in env:
            kinds += ("explore",)
        sets |= {f"{env}-{kind}": (env, limit) for kind in kinds}
    return sets
