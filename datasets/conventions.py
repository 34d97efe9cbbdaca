"""What a source's actions mean, declared where the format does not say, and their rotations represented otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config import to_dict
from ..errors import UserError, unknown
from ..spec import ROTATIONS, SCALED, ArraySpec, Convention
from .episodes import recorded_specs
from .rotations import convert
from .source import Recorded, Source


@dataclass(frozen=True, eq=False)
class Changed:
    """A source whose actions are changed episode by episode."""

    source: Source
    spec: ArraySpec
    """of the changed actions"""
    change: Callable[[np.ndarray], np.ndarray]
    """(L, A) -> (L, A')"""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The source's, with the new spec of the action."""
        specs = self.source.attrs.get("specs") or {}
        return {**self.source.attrs, "specs": {**specs, "action": to_dict(self.spec)}}

    def __len__(self) -> int:
        return len(self.source)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """The source's, changed."""
        for episode in self.source.episodes(start):
            yield replace(episode, data={**episode.data, "action": self.change(episode.data["action"])})


def declared(source: Source, facts: Mapping[str, Any]) -> Source:
    """The source with a convention given by hand; an empty mapping changes nothing.

    Raises:
        UserError: for a field that `Convention` does not have, or where the source says otherwise.
    """
    if not facts:
        return source
    given = Convention.from_json(facts)
    recorded = _action_spec(source)
    stated = replace(recorded, convention=given.filled(recorded.convention))
    if difference := recorded.disagreement(stated):
        raise UserError(f"the dataset says otherwise about its actions: {difference} as given")
    return Changed(source, stated, lambda action: action)


def rotated(source: Source, target: str) -> Source:
    """The source with the rotations in its actions represented as `target`; empty changes nothing.

    Raises:
        UserError: where it is not known where and how actions rotate, or they are scaled by a controller.
    """
    if not target:
        return source
    if target not in ROTATIONS:
        raise unknown("rotation", target, ROTATIONS)
    spec = _action_spec(source)
    said = spec.convention
    if not said.rotation or not said.rotation_at:
        raise UserError(
            "the dataset does not say how its actions rotate: add "
            '--action \'{"rotation": "axis_angle", "rotation_at": [3]}\' with what is right'
        )
    if spec.unit.startswith(SCALED):
        raise UserError(f"the rotations are scaled by a controller, not angles: they cannot become {target}")
    return Changed(source, _rotated_spec(spec, target), lambda action: _rotate(action, said, target))


def _rotate(action: np.ndarray, said: Convention, target: str) -> np.ndarray:
    parts, done = [], 0
    for at in sorted(said.rotation_at):
        end = at + ROTATIONS[said.rotation]
        if not done <= at < end <= action.shape[-1]:
            raise UserError(f"the {said.rotation} at {at} does not fit into actions of {action.shape[-1]} numbers")
        parts += [action[..., done:at], convert(action[..., at:end], said.rotation, target)]
        done = end
    return np.concatenate([*parts, action[..., done:]], -1)


def _rotated_spec(spec: ArraySpec, target: str) -> ArraySpec:
    """Elements behind a rotation move; names and limits of single elements are lost with their meaning."""
    said = spec.convention
    grown = ROTATIONS[target] - ROTATIONS[said.rotation]
    moved = tuple(at + grown * sum(turn < at for turn in said.rotation_at) for at in said.gripper_at)
    turns = tuple(at + grown * i for i, at in enumerate(sorted(said.rotation_at)))
    convention = replace(said, rotation=target, rotation_at=turns, gripper_at=moved)
    size = (spec.shape[0] + grown * len(said.rotation_at),) if spec.shape else ()
    return ArraySpec(size, unit=spec.unit, convention=convention)


def _action_spec(source: Source) -> ArraySpec:
    recorded = recorded_specs(source.attrs).get("action")
    if recorded is not None:
        return recorded
    first = next(iter(source.episodes()), None)
    if first is None:
        raise UserError("the dataset holds no episodes")
    return ArraySpec(tuple(first.data["action"].shape[1:]))
