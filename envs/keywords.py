"""Keywords of an environment: honoured by being a field of its task, or refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ..errors import UserError, unknown

T = TypeVar("T")

DRAWING = {
    "render_mode",
    "width",
    "height",
    "camera_id",
    "camera_name",
    "default_camera_config",
    "max_geom",
    "visual_options",
}
"""Gymnasium's keywords that change pictures, not the task"""


def is_number(value: Any) -> bool:
    """A number that is no bool, which Python counts among the ints."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_pair(value: Any) -> bool:
    """Two numbers."""
    return isinstance(value, tuple) and len(value) == 2 and all(is_number(v) for v in value)


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda v: isinstance(v, bool), "True or False"),
    "int": (lambda v: is_number(v) and isinstance(v, int) and v > 0, "a positive integer"),
    "float": (is_number, "a number"),
    "str": (lambda v: isinstance(v, str), "text"),
    "int | str": (lambda v: isinstance(v, (int, str)), "a name or a number"),
    "Range": (is_pair, "two numbers"),
    "Names | None": (
        lambda v: v is None or (isinstance(v, tuple) and all(isinstance(name, str) for name in v)),
        "a list of names",
    ),
    "Cell | None": (lambda v: v is None or is_pair(v), "a row and a column"),
    "Names": (lambda v: isinstance(v, tuple) and all(isinstance(name, str) for name in v), "a list of names"),
    "Map": (lambda v: isinstance(v, tuple) and all(isinstance(row, tuple) for row in v), "rows of cells"),
}
"""annotation of a field -> what its value must be, as a test and in words"""


def build_task(kind: type[T], env: str, kwargs: Mapping[str, Any], preset: Mapping[str, Any]) -> T:
    """A task from keywords over its presets and defaults; JSON's lists become tuples."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(cast(Any, kind))}
    given = {name: as_tuple(value) for name, value in kwargs.items()}
    for name, value in given.items():
        if name in DRAWING:
            raise UserError(f"{env} takes no '{name}': ask for pictures with render(slot, width, height)")
        if name not in fields:
            raise unknown(f"keyword of {env}", name, [*fields, "max_episode_steps"])
        fits, wanted = KINDS[fields[name]]
        if not fits(value):
            raise UserError(f"{name} of {env} cannot be {value!r}: expected {wanted}")
        if fields[name] in ("float", "Range"):
            given[name] = as_float(value)
    return kind(**{**preset, **given})


def as_tuple(value: Any) -> Any:
    """Lists, also nested, as tuples."""
    return tuple(as_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value


def as_float(value: Any) -> Any:
    """A number or numbers, written as integers or not, as floats."""
    return tuple(map(as_float, value)) if isinstance(value, tuple) else float(value)


def split_limit(env: str, kwargs: Mapping[str, Any], default: int) -> tuple[int, dict[str, Any]]:
    """Take `max_episode_steps` out of the keywords."""
    rest = dict(kwargs)
    limit = rest.pop("max_episode_steps", default)
    if not isinstance(limit, int) or limit < 1:
        raise UserError(f"max_episode_steps of {env} must be a positive integer, got {limit!r}")
    return limit, rest
