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

    whole: Episodes

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The set's attributes."""
        return self.whole.attrs

    def __len__(self) -> int:
        return len(self.whole)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """Episodes from `start` on."""
        for i in range(start, len(self)):
            yield Recorded(self.whole.episode(i), {key: value[i] for key, value in self.whole.final.items()})
