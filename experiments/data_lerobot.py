"""`data convert --to lerobot`: write a set so that lerobot opens it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..datasets.episodes import Episodes
    from ..datasets.source import Recorded, Source


@dataclass(frozen=True)
class ToLeRobot:
    """How a LeRobot folder is written."""

    codec: Literal["h264", "lossless"] = "h264"
    """of the videos; `lossless` is H.264 that gives every pixel back, several times as large"""
    task: str = ""
    """instruction for all episodes of a set that has none; empty: the environment's id"""
    fps: float = 0.0
    """steps per second of a set that does not say"""


@dataclass(frozen=True, eq=False)
class Resident:
    """A set in memory as a source."""

    whole: Episodes

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The set's attributes."""
        return self.whole.attrs

    def __len__(self) -> int:
        return len(self.whole)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Views of each episode."""
        from ..datasets.source import Recorded

        for i in range(start, len(self)):
            yield Recorded(self.whole.episode(i), {key: value[i] for key, value in self.whole.final.items()})


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
