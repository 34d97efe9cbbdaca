"""`data convert --to lerobot`: write a set so that lerobot opens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..datasets.source import Source


@dataclass(frozen=True)
class ToLeRobot:
    """How a LeRobot folder is written."""

    codec: Literal["h264", "lossless"] = "h264"
    """of the videos; `lossless` is H.264 that gives every pixel back, many times as large"""
    task: str = ""
    """instruction for all episodes of a set that has none; empty: the environment's id"""
    fps: float = 0.0
    """steps per second of a set that does not say"""


def write_lerobot(source: Source, target: str, options: ToLeRobot) -> None:
    """Write a LeRobot folder, showing progress, and say what was written and what the format has no place for."""
    from ..datasets.lerobot_writer import write
    from .progress import Progress

    with Progress(f"write {target}", total=len(source), unit="episodes") as progress:
        steps = write(
            target,
            source,
            codec=options.codec,
            task=options.task,
            fps=options.fps,
            progress=lambda count: progress.update({"episodes": count}),
        )
    print(f"{target}: {len(source)} episodes, {steps} steps, LeRobot v3.0")
    if next(source.episodes()).final:
        print("  left out: what followed each episode's last action, for which LeRobot has no place")
