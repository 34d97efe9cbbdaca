"""Dataclasses to JSON and back: every class is tagged by its name, so a file rebuilds what wrote it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from .errors import UserError

PACKAGE = __name__.rpartition(".")[0]


def to_dict(value: Any) -> Any:
    """Turn dataclasses, tuples and mappings into JSON values.

    A dataclass becomes a mapping with `type` set to its path inside the package.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__.removeprefix(PACKAGE + '.')}:{type(value).__qualname__}"
        return {"type": path} | {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(v) for v in value]
    return value


def from_dict(value: Any) -> Any:
    """Rebuild what `to_dict` wrote. Lists come back as tuples. Only dataclasses of this package are built.

    Raises:
        UserError: for a class that this version does not have, or a field that the class does not have.
    """
    if isinstance(value, list):
        return tuple(from_dict(v) for v in value)
    if not isinstance(value, dict):
        return value
    if not (isinstance(value.get("type"), str) and ":" in value["type"]):
        return {k: from_dict(v) for k, v in value.items()}
    cls = _lookup(value["type"])
    try:
        return cls(**{k: from_dict(v) for k, v in value.items() if k != "type"})
    except TypeError as error:
        raise UserError(f"configuration of {value['type']} does not fit this version: {error}") from None


def _lookup(path: str) -> type:
    module, _, name = path.partition(":")
    try:
        cls = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except (ImportError, AttributeError):
        cls = None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"configuration names '{path}', which this version of {PACKAGE} does not have")
    return cls
