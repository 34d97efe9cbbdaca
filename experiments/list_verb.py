"""The verb `list`: recipes, algorithms and environments."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import unknown
from .cli import parse

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class List:
    """List what there is to choose from."""

    kinds: Positional[Annotated[tuple[str, ...], arg(metavar="{recipes,algos,envs}")]] = ()
    """what to list; none: everything"""
    json: bool = False
    """print JSON"""


def list_all(argv: Sequence[str]) -> int:
    """`noisepilot list [recipes|algos|envs] [--json]`."""
    options = parse(List, argv, "noisepilot list")
    for kind in options.kinds:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    found = {kind: rows() for kind, rows in KINDS.items() if kind in (options.kinds or KINDS)}
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return 0


def recipe_rows() -> Rows:
    """Every recipe with its environment and the algorithms that it has settings of its own for."""
    from .recipe import recipes

    return [
        {"recipe": name, "env": recipe.env.id or "-", "algos": ", ".join(recipe.algos) or "-"}
        for name, recipe in sorted(recipes().items())
    ]


def algo_rows() -> Rows:
    """Every method: what it is, and the recipes that have settings of their own for it; all recipes have the others."""
    from .methods import METHODS
    from .recipe import recipes

    known = recipes()
    words = {name: method.what for name, method in METHODS.items()}
    rows = [
        {"algo": "bc", "verb": "pretrain", "what": "behaviour cloning", "recipes": "all"},
        {"algo": "distill", "verb": "distill", "what": "few steps from many, in several ways", "recipes": "all"},
    ]
    for name in dict.fromkeys([*words, *(name for recipe in known.values() for name in recipe.algos)]):
        users = ", ".join(sorted(key for key, recipe in known.items() if name in recipe.algos))
        what = words.get(name, "settings of a recipe")
        rows.append({"algo": name, "verb": f"finetune --algo {name}", "what": what, "recipes": users or "defaults"})
    return rows


def env_rows() -> Rows:
    """Every environment that can be made by its id, and what runs it; those that run in this process first."""
    from ..envs import list_envs

    words = {"rollout": "native", "threads": "native", "worker": "worker processes"}
    rows = [{"env": env, "backend": words[backend]} for env, backend in list_envs().items()]
    return sorted(rows, key=lambda row: (row["backend"], row["env"]))


KINDS: dict[str, Callable[[], Rows]] = {"recipes": recipe_rows, "algos": algo_rows, "envs": env_rows}


def _print(found: dict[str, Rows]) -> None:
    from .table import show

    for i, rows in enumerate(found.values()):
        if i:
            print()
        show(list(rows[0]), [list(row.values()) for row in rows])
