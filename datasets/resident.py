"""A set in memory as a source, for what takes sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .episodes import Episodes
from .source import Recorded


@dataclass(frozen=True, eq=False)
class Resident:
    """Hands out views of the set's episodes."""

    held: Episodes

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The set's attributes."""
        return self.held.attrs

    def __len__(self) -> int:
        return len(self.held)

    def whole(self) -> Episodes:
        """The set."""
        return self.held

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Episodes from `start` on."""
        for i in range(start, len(self)):
            yield Recorded(self.held.episode(i), {key: value[i] for key, value in self.held.final.items()})
