"""What is taken of a source's observations: some of them, and pictures at another size. L steps of one episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config import to_dict
from ..errors import UserError, unknown
from ..resize import Size, resized
from ..spec import ArraySpec, split_pictures
from .episodes import recorded_specs
from .source import Recorded, Source
from .validity import OBS, picture_fault


@dataclass(frozen=True, eq=False)
class Selected:
    """A source with some of its observations, and its pictures at one size."""

    source: Source
    observe: tuple[str, ...] | None = None
    """names without `observation.`; None: all"""
    size: Size | None = None
    """None: as they are"""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"pictures of {self.size} hold nothing: height and width must be at least 1")

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The source's, and that pictures have another size."""
        attrs = dict(self.source.attrs)
        specs = {k: v for k, v in recorded_specs(attrs).items() if self._taken(k)}
        if self.size is not None:
            height, width = self.size
            note = f"pictures made {height} x {width} (height x width) by the mean over areas"
            attrs["notes"] = [*(attrs.get("notes") or []), note]
            for name, spec in split_pictures(_observations(specs))[0].items():
                specs[OBS + name] = replace(spec, shape=(*self.size, spec.shape[2]))
        return attrs | ({"specs": to_dict(specs)} if specs else {})

    def __len__(self) -> int:
        return len(self.source)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """The source's, as they are taken.

        Raises:
            UserError: for an observation that is not there, or pictures that are none.
        """
        for episode in self.source.episodes(start):
            yield Recorded(self._view(episode.data, 1), self._view(episode.final, 0))

    def _view(self, arrays: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
        """`steps` axes come before those of one observation."""
        shapes = {key: ArraySpec(value.shape[steps:]) for key, value in arrays.items() if key.startswith(OBS)}
        known = _observations(shapes)
        for name in self.observe or ():
            if steps and name not in known:
                raise unknown("observation", name, known)
        taken = {key: value for key, value in arrays.items() if self._taken(key)}
        if self.size is not None:
            for key in [OBS + name for name in split_pictures(known)[0] if OBS + name in taken]:
                pictures = taken[key] if steps else taken[key][None]
                if fault := picture_fault(pictures):
                    raise UserError(f"'{key}' has {fault}")
                taken[key] = resized(pictures, self.size) if steps else resized(pictures, self.size)[0]
        return taken

    def _taken(self, key: str) -> bool:
        return self.observe is None or not key.startswith(OBS) or key.removeprefix(OBS) in self.observe


def _observations(specs: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    return {key.removeprefix(OBS): spec for key, spec in specs.items() if key.startswith(OBS)}
