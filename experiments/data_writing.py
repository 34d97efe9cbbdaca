"""The data verbs that write one set from others: convert, mix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import UserError
from ..spec import split_pictures
from .data_lerobot import ToLeRobot, write_lerobot
from .data_tables import show
from .env_ref import JSON, EnvRef
from .progress import Progress

if TYPE_CHECKING:
    from ..datasets.source import Source
    from ..spec import EnvSpec

PARTS = ("episodes", "steps", "mean_return")
"""what is said of each part of a mixture"""


@dataclass(frozen=True)
class Convert:
    """Write any readable dataset as a zarr folder; an interrupted conversion continues where it was.

    Or as a folder of LeRobot, which appears once it is whole.
    """

    source: tyro.conf.Positional[str]
    """dataset of any format, see docs/data.md"""
    target: tyro.conf.Positional[str]
    """zarr folder to write or continue, or LeRobot folder to write"""
    to: Literal["zarr", "lerobot"] = "zarr"
    """layout to write: noisepilot's own, or LeRobot v3.0"""
    lerobot: ToLeRobot = field(default_factory=ToLeRobot)
    options: Annotated[dict[str, Any], JSON] = field(default_factory=dict)
    """options of the source's format, as JSON: '{"mask": "train"}' for robomimic"""
    action: Annotated[dict[str, Any], JSON] = field(default_factory=dict)
    """what the actions mean where the source does not say: '{"mode": "absolute", "rotation": "axis_angle",
    "rotation_at": [3]}'; see Convention"""
    rotation: str = ""
    """rotate actions into this representation: axis_angle, euler_xyz, quat_xyzw, quat_wxyz, 6d, matrix"""
    observe: tuple[str, ...] | None = None
    """names of the observations to keep, `state images.front`; None: all"""
    size: tuple[int, int] | None = None
    """height and width that pictures are made; None: as they are"""
    env: EnvRef = field(default_factory=EnvRef)
    """environment to fit the set to: its observations, action limits, rewards and ends; read as a whole"""


@dataclass(frozen=True)
class Mix:
    """Join sets of one environment into one."""

    target: tyro.conf.Positional[str]
    """zarr folder to write"""
    sources: tyro.conf.Positional[tuple[str, ...]]
    """datasets of any format, in their order"""
    steps: int = 0
    """first steps taken of each, the last episode cut off there; 0: all"""


def convert(config: Convert) -> int:
    """Convert, fit to an environment if one is named, and say what was written and changed."""
    from ..datasets import convert as converting
    from ..datasets.conventions import declared, rotated
    from ..datasets.readers import open_source
    from ..datasets.selection import Selected

    source = rotated(declared(open_source(config.source, **config.options), config.action), config.rotation)
    if config.observe is not None or config.size is not None:
        source = Selected(source, config.observe, config.size)
    if config.env.id:
        return _fitted(config, source, config.env.spec())
    if config.to == "lerobot":
        write_lerobot(source, config.target, config.lerobot)
        return 0
    with Progress(f"convert {config.source}", total=len(source), unit="episodes") as progress:
        digest = converting.convert(
            source, config.source, config.target, lambda done: progress.update({"episodes": done})
        )
    shapes = converting.shapes(config.target)
    print(f"{config.target}: {len(source)} episodes, {shapes['action'][0]} steps, {', '.join(sorted(shapes))}")
    print(f"  sha256 {digest}")
    if left_out := source.attrs.get("left_out"):
        print(f"  left out: {', '.join(left_out)}")
    return 0


def _fitted(config: Convert, source: Source, spec: EnvSpec) -> int:
    from ..datasets.conform import conform
    from ..datasets.resident import Resident
    from ..datasets.source import collect
    from ..datasets.validity import require_sound
    from ..envs.registry import make_task

    for name, array in split_pictures(spec.obs)[0].items():
        if config.size is not None and array.shape[:2] != config.size:
            raise UserError(
                f"{spec.id} shows '{name}' at {array.shape[:2]}, not at {config.size}: give it that size by "
                "--env-kwargs, or leave --size out"
            )
    episodes = require_sound(collect(source), config.source)
    episodes, notes = conform(episodes, spec, make_task(config.env.id, config.env.kwargs))
    if config.to == "lerobot":
        write_lerobot(Resident(episodes), config.target, config.lerobot)
    else:
        episodes.write(config.target)
        keys = ", ".join(sorted(episodes.data))
        print(f"{config.target}: {len(episodes)} episodes, {episodes.num_steps} steps, {keys}")
    print("".join(f"  {note}\n" for note in notes), end="")
    return 0


def mix(config: Mix) -> int:
    """Join the sets and say what came out."""
    from ..datasets.mix import first_steps, join
    from ..datasets.readers import load

    sets = [load(path) for path in config.sources]
    if config.steps:
        sets = [first_steps(episodes, config.steps) for episodes in sets]
    mixed = join(sets)
    mixed.write(config.target)
    rows = [(part["source"], *(f"{part[key]:.6g}" for key in PARTS)) for part in mixed.attrs["parts"]]
    show("", ("", *PARTS), rows)
    print(f"{config.target}: {len(mixed)} episodes, {mixed.num_steps} steps, {', '.join(sorted(mixed.data))}")
    return 0
