"""Configurations that OmegaConf pickled, as plain dictionaries, lists and values."""

from __future__ import annotations

import re
from typing import Any

from ...errors import UserError
from .unpickler import Opaque

DEEPEST = 50
"""levels of a configuration; a damaged file may contain itself"""
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def read_config(node: Any) -> dict[str, Any]:
    """The values below a node; `${name.of.another}` is replaced by what it names, other expressions stay as text.

    Raises:
        UserError: for something that is no mapping, or nests without end.
    """
    root = _plain(node, 0)
    if not isinstance(root, dict):
        raise UserError("holds no configuration in 'cfg': give a checkpoint of a training")
    return _resolved(root, root, 0)


def _plain(node: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise UserError("has a configuration that nests without end: copy it again")
    if isinstance(node, Opaque):
        state = node.state if isinstance(node.state, dict) else {}
        return _plain(state["_content"] if "_content" in state else state.get("_val"), depth + 1)
    if isinstance(node, dict):
        return {key: _plain(value, depth + 1) for key, value in node.items()}
    return [_plain(value, depth + 1) for value in node] if isinstance(node, list) else node


def _resolved(value: Any, root: dict[str, Any], depth: int) -> Any:
    if depth > DEEPEST:
        raise UserError("has a configuration that refers to itself: copy it again")
    if isinstance(value, dict):
        return {key: _resolved(item, root, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, root, depth + 1) for item in value]
    named = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if not named:
        return value
    found: Any = root
    for part in named[1].split("."):
        if not isinstance(found, dict) or part not in found:
            return value
        found = found[part]
    return _resolved(found, root, depth + 1)
