"""D4RL's names: `hopper-medium-v2` is an environment with keywords, a data set and the two returns of its score.

Fu et al. 2020, https://arxiv.org/abs/2004.07219. The score of a return is 100 (return - min) / (max - min), with
the numbers that D4RL publishes (its infos.py). D4RL itself is not needed. Free of torch and simulators.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown
from .keywords import DRAWING, as_tuple

FOLDER = "D4RL_DATASET_DIR"
"""environment variable that says where D4RL's files lie; without it ~/.d4rl/datasets, as in D4RL"""


@dataclass(frozen=True)
class Dataset:
    """What one of D4RL's names stands for."""

    name: str
    reference: tuple[float, float]
    """returns of a random and an expert policy, as published"""
    file: str = ""
    """what D4RL calls its HDF5 file"""
    env: str = ""
    """id of the environment; empty: there is none here"""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    minari: str = ""
    """id of the same recordings in Minari; empty: it has none"""
    note: str = ""
    """how the environment differs from the one that was recorded"""

    def local_file(self) -> Path:
        """Where the HDF5 file lies on this machine.

        Raises:
            UserError: if it does not; the message says where it belongs.
        """
        folder = Path(os.environ.get(FOLDER) or Path.home() / ".d4rl" / "datasets")
        for path in (folder / self.file, folder / f"{self.name}.hdf5"):
            if path.is_file():
                return path
        further = f"; Minari has it as {self.minari}" if self.minari else ""
        raise UserError(
            f"no file of {self.name}: put {self.file} into {folder}, or name its folder in {FOLDER}{further}"
        )


def named(name: str) -> Dataset | None:
    """What a name stands for; None if it is none of D4RL's."""
    return NAMES.get(name)


def resolve(env: str, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """An environment and its keywords; D4RL's names become theirs, all others stay as they are.

    Raises:
        UserError: for a name of D4RL whose simulator is not to be had.
    """
    found = NAMES.get(env)
    if found is None:
        return env, dict(kwargs)
    if not found.env:
        raise UserError(f"there is no environment for {env}: only its score is known")
    return found.env, {**found.kwargs, **kwargs}


def reference(env: str, kwargs: Mapping[str, Any]) -> tuple[float, float] | None:
    """The returns that define the score of an environment (an id, not a name of D4RL), if it is one of D4RL's.

    Only for D4RL's own keywords: another reward or time limit makes another return.
    """
    given = {key: as_tuple(value) for key, value in kwargs.items() if key not in DRAWING}
    for found in NAMES.values():
        if found.env == env and given == {key: as_tuple(value) for key, value in found.kwargs.items()}:
            return found.reference
    return None


def score(name: str, returned: float) -> float:
    """D4RL's normalised score of a return: 0 is the random and 100 the expert policy.

    Raises:
        UserError: for a name that D4RL publishes no returns for.
    """
    found = NAMES.get(name)
    if found is None:
        raise unknown("name of D4RL (no score without a reference)", name, NAMES)
    low, high = found.reference
    return 100 * (returned - low) / (high - low)


V5 = "recorded in Gym's version {} with an older MuJoCo, played in Gymnasium's version 5"
LOCOMOTION = {
    "halfcheetah": ("HalfCheetah-v5", (-280.178953, 12135.0), ""),
    "hopper": ("Hopper-v5", (-20.272305, 3234.3), ""),
    "walker2d": ("Walker2d-v5", (1.629008, 4592.3), ", whose feet have another friction"),
    "ant": ("Ant-v5", (-325.6, 3879.7), ", which pays contacts otherwise and observes 105 numbers instead of 111"),
}
"""robot -> environment, reference, further difference"""
ADROIT = {
    "pen": ("AdroitHandPen-v1", (96.262799, 3076.8331017826877)),
    "hammer": ("AdroitHandHammer-v1", (-274.856578, 12794.134825156867)),
    "relocate": ("AdroitHandRelocate-v1", (-6.425911, 4233.877797728884)),
    "door": ("AdroitHandDoor-v1", (-56.512833, 2880.5693087298737)),
}
"""task -> environment, reference"""
MAZE2D = {
    "open-v0": ("Open", (2, 3), 150, (0.01, 20.66)),
    "umaze-v1": ("UMaze", (1, 1), None, (23.85, 161.86)),
    "medium-v1": ("Medium", (6, 6), None, (13.13, 277.39)),
    "large-v1": ("Large", (7, 9), None, (6.7, 273.99)),
    "open-dense-v0": ("OpenDense", (2, 3), 150, (11.17817, 27.166538620695782)),
    "umaze-dense-v1": ("UMazeDense", (1, 1), None, (68.537689, 193.66285642381482)),
    "medium-dense-v1": ("MediumDense", (6, 6), None, (44.264742, 297.4552547777125)),
    "large-dense-v1": ("LargeDense", (7, 9), None, (30.569041, 303.4857382709002)),
}
"""rest of the name -> PointMaze's map, cell of the goal, time limit where not PointMaze's, reference"""
ANTMAZE = {"umaze": ("UMaze", (3, 1), "u-maze"), "medium": ("Medium", (6, 6), "big-maze")}
ANTMAZE |= {"large": ("Large", (7, 9), "hardest-maze")}
"""size -> AntMaze's map, cell of the goal, D4RL's word in file names"""
SLIDER = ("microwave", "kettle", "light switch", "slide cabinet")
KITCHEN = {
    "complete": (SLIDER, "mini_kitchen_microwave_kettle_light_slider-v0"),
    "partial": (SLIDER, "kitchen_microwave_kettle_light_slider-v0"),
    "mixed": (
        ("microwave", "kettle", "bottom burner", "light switch"),
        "kitchen_microwave_kettle_bottomburner_light-v0",
    ),
}
"""data set -> tasks, file"""
ELSEWHERE = {
    "minigrid-fourrooms-v0": (0.01442, 2.89685),
    "minigrid-fourrooms-random-v0": (0.01442, 2.89685),
    "flow-ring-random-v0": (-165.22, 24.42),
    "flow-ring-controller-v0": (-165.22, 24.42),
    "flow-merge-random-v0": (118.67993, 330.03179),
    "flow-merge-controller-v0": (118.67993, 330.03179),
    "carla-lane-v0": (-0.8503839912088142, 1023.5784385429523),
    "carla-town-v0": (-114.81579500772153, 2440.1772022247314),
    "bullet-maze2d-open-v0": (8.75, 64.15),
    "bullet-maze2d-umaze-v0": (32.46, 153.99),
    "bullet-maze2d-medium-v0": (14.87, 238.05),
    "bullet-maze2d-large-v0": (1.82, 285.92),
}
"""names whose simulators are not to be had"""
BULLET = {
    "halfcheetah": (-1275.766996, 2381.6725),
    "hopper": (20.058972, 1441.8059623430963),
    "ant": (373.705955, 2650.495),
    "walker2d": (16.523877, 1623.6476303317536),
}
BULLET_SETS = ("random", "medium", "expert", "medium-expert", "medium-replay")


def _locomotion() -> list[Dataset]:
    sets = []
    for robot, (env, scores, more) in LOCOMOTION.items():
        for data in (*BULLET_SETS, "full-replay"):
            for version in ("v0", "v1", "v2"):
                if (data, version) == ("full-replay", "v0"):
                    continue
                stem = f"{robot}_{data}".replace("-", "_")
                if version == "v0":
                    stem = f"{robot}_mixed".replace("walker2d", "walker") if data == "medium-replay" else stem
                file = f"{stem}.hdf5" if version == "v0" else f"{stem}-{version}.hdf5"
                note = V5.format(2 if version != "v0" else 1) + more
                sets.append(Dataset(f"{robot}-{data}-{version}", scores, file, env, note=note))
    return sets


def _adroit() -> list[Dataset]:
    old = {"human": "{}-v0_demos_clipped", "cloned": "{}-demos-v0-bc-combined", "expert": "{}-v0_expert_clipped"}
    sets = []
    for task, (env, scores) in ADROIT.items():
        for data, stem in old.items():
            for version, file in (("v0", stem.format(task)), ("v1", f"{task}-{data}-v1")):
                names = {"env": env, "kwargs": {"reward_type": "d4rl"}, "note": "recorded with an older MuJoCo"}
                minari = f"D4RL/{task}/{data}-v2" if version == "v1" else ""
                sets.append(Dataset(f"{task}-{data}-{version}", scores, f"{file}.hdf5", minari=minari, **names))
    return sets


def _maze2d() -> list[Dataset]:
    note = "starts and coordinates are PointMaze's, and its goal is reached within 0.45 m instead of 0.5"
    sets = []
    for rest, (maze, goal, limit, scores) in MAZE2D.items():
        kwargs = {"goal_cell": goal, "position_noise_range": 0.1} | ({"max_episode_steps": limit} if limit else {})
        bare, version = rest.rsplit("-", 1)
        file = f"maze2d-{bare}" + ("" if "dense" in bare else "-sparse") + ("-v1" if version == "v1" else "")
        minari = f"D4RL/pointmaze/{bare}-v2"
        env = f"PointMaze_{maze}-v3"
        sets.append(Dataset(f"maze2d-{rest}", scores, f"{file}.hdf5", env, kwargs, minari, note))
    return sets


def _antmaze() -> list[Dataset]:
    note = "which acts at 20 Hz instead of 10 and reaches its goal within 0.45 m instead of 0.5"
    sets = []
    for size, (maze, goal, word) in ANTMAZE.items():
        for kind in ("", "diverse") if size == "umaze" else ("play", "diverse"):
            name = f"{size}-{kind}".rstrip("-")
            multi = f"multistart_{bool(kind)}_multigoal_{kind == 'diverse'}"
            for version, suffix in (("v0", ""), ("v2", "_fixed")):
                file = f"Ant_maze_{word}_noisy_{multi}_sparse{suffix}.hdf5"
                kwargs = {"goal_cell": goal, "reset_cell": (1, 1), "continuing_task": False}
                minari = f"D4RL/antmaze/{name}-v1" if version == "v2" else ""
                full = f"antmaze-{name}-{version}"
                sets.append(Dataset(full, (0.0, 1.0), file, f"AntMaze_{maze}-v5", kwargs, minari, note))
    return sets


def _kitchen() -> list[Dataset]:
    note = "D4RL observes 60 numbers (positions and the goal), FrankaKitchen-v1 59 (positions and velocities)"
    return [
        Dataset(
            f"kitchen-{data}-v0",
            (0.0, 4.0),
            f"{file}.hdf5",
            "FrankaKitchen-v1",
            {"tasks_to_complete": tasks},
            f"D4RL/kitchen/{data}-v2",
            note,
        )
        for data, (tasks, file) in KITCHEN.items()
    ]


def _elsewhere() -> list[Dataset]:
    bullet = {f"bullet-{robot}-{data}-v0": s for robot, s in BULLET.items() for data in BULLET_SETS}
    return [Dataset(name, scores, f"{name}.hdf5") for name, scores in (ELSEWHERE | bullet).items()]


ALL = (_locomotion, _adroit, _maze2d, _antmaze, _kitchen, _elsewhere)
NAMES = {found.name: found for sets in ALL for found in sets()}
