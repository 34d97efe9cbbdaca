"""The seam between formats and everything else: a source hands out one recorded episode after the other.

A format is one module of `datasets` with two functions, and one line in the table of `readers`:

    recognises(path: Path) -> bool                    cheap, by content where possible; heavy imports inside
    open_source(path: Path, **options) -> Source      a UserError of one line for what cannot be read

L steps of one episode, T steps and E episodes in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import UserError
from .episodes import Episodes
from .validity import require_finite


@dataclass(frozen=True, eq=False)
class Recorded:
    """One episode, under the names of `Episodes`."""

    data: Mapping[str, np.ndarray]
    """key -> (L, ...); the same keys, types and row shapes in every episode of a source"""
    final: Mapping[str, np.ndarray] = field(default_factory=dict)
    """observation key -> (...): what followed the last action; all episodes of a source have it or none"""

    def __post_init__(self) -> None:
        # Some files hold a number's bytes in the order of another machine.
        for name in ("data", "final"):
            values = {
                key: value.astype(value.dtype.newbyteorder("="), copy=False)
                for key, value in getattr(self, name).items()
            }
            object.__setattr__(self, name, values)


@runtime_checkable
class Source(Protocol):
    """A dataset of some format, opened: what it says of itself, and its episodes in their order."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """JSON values as in `Episodes.attrs`: env, env_kwargs, fps, source, licence, specs and the format's own."""
        ...

    def __len__(self) -> int:
        """Episodes, E."""
        ...

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Episodes from `start` on, read one at a time and without reading those before.

        Raises:
            UserError: where an episode is damaged or does not fit the format.
        """
        ...


@runtime_checkable
class Whole(Protocol):
    """A source that reads everything at once much faster than one episode after the other."""

    def whole(self) -> Episodes:
        """All of it in memory."""
        ...


def collect(source: Source) -> Episodes:
    """The whole of a source in memory.

    Raises:
        UserError: where it has no episodes, or episodes differ in keys, types or row shapes.
    """
    if isinstance(source, Whole):
        return source.whole()
    recorded = list(source.episodes())
    if not recorded:
        raise UserError("the dataset holds no episodes")
    for index, episode in enumerate(recorded):
        require_alike(recorded[0], episode, index)
    first = recorded[0]
    if "action" not in first.data:
        raise UserError(f"a dataset needs 'action': found {', '.join(sorted(first.data)) or 'nothing'}")
    lengths = [len(episode.data["action"]) for episode in recorded]
    return Episodes(
        {key: np.concatenate([episode.data[key] for episode in recorded]) for key in first.data},
        np.cumsum(lengths, dtype=np.int64),
        dict(source.attrs),
        {key: np.stack([episode.final[key] for episode in recorded]) for key in first.final},
    )


def require_alike(first: Recorded, episode: Recorded, index: int) -> None:
    """Refuse an episode whose keys, types or row shapes are not those of the first one, or unequally long ones.

    Raises:
        UserError: naming the episode and the key.
    """
    for ours, theirs, rows in ((episode.data, first.data, 1), (episode.final, first.final, 0)):
        for key in sorted(ours.keys() | theirs.keys()):
            now, earlier = _kind(ours.get(key), rows), _kind(theirs.get(key), rows)
            if now != earlier:
                raise UserError(f"episode {index}: '{key}' is {now} but {earlier} in episode 0")
    lengths = {key: len(value) if value.ndim else 0 for key, value in episode.data.items()}
    steps = lengths.get("action", 0)
    for key, length in lengths.items():
        if length != steps:
            raise UserError(f"episode {index}: '{key}' has {length} rows but 'action' has {steps}")


def require_whole(episode: Recorded, index: int) -> None:
    """Refuse an episode that cannot be trained on: arrays that do not fit each other, no steps, NaN.

    Raises:
        UserError: naming the episode and the key.
    """
    steps = len(episode.data.get("action", ()))
    if "action" in episode.data and steps == 0:
        raise UserError(f"episode {index} has no steps: leave it out")
    try:
        Episodes(episode.data, np.array([steps]), final={key: value[None] for key, value in episode.final.items()})
        require_finite(episode.data, f"episode {index}")
    except UserError as error:
        raise error if f"episode {index}" in str(error) else UserError(f"episode {index}: {error}") from None


def _kind(value: np.ndarray | None, rows: int) -> str:
    return "absent" if value is None else f"{value.dtype} {value.shape[rows:]}"
