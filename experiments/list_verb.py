"""The verb `list`: recipes, algorithms and environments."""

from __future__ import annotations

import json
import sys
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
    """Every recipe with its environment and the algorithms that `finetune --algo` accepts."""
    from .recipe import recipes

    return [
        {"recipe": name, "env": recipe.env.id or "-", "algos": ", ".join(recipe.algos)}
        for name, recipe in sorted(recipes().items())
    ]


def algo_rows() -> Rows:
    """Every method: what it is, and the recipes that have settings for it."""
    from ..algos.bc import BC
    from ..algos.distill import Distill
    from .recipe import recipes

    known = recipes()
    rows = [_algo("bc", "pretrain", BC, ["all"]), _algo("distill", "distill", Distill, ["all"])]
    for name in dict.fromkeys(name for recipe in known.values() for name in recipe.algos):
        users = sorted(key for key, recipe in known.items() if name in recipe.algos)
        settings = known[users[0]].algos[name]
        rows.append(_algo(name, f"finetune --algo {name}", type(settings), users))
    return rows


def env_rows() -> Rows:
    """Every environment that can be made by its id, and what runs it; those that run in this process first."""
    from ..envs import list_envs

    words = {"rollout": "native", "threads": "native", "worker": "worker processes"}
    rows = [{"env": env, "backend": words[backend]} for env, backend in list_envs().items()]
    return sorted(rows, key=lambda row: (row["backend"], row["env"]))


KINDS: dict[str, Callable[[], Rows]] = {"recipes": recipe_rows, "algos": algo_rows, "envs": env_rows}


def _algo(name: str, verb: str, method: type, recipes: list[str]) -> dict[str, str]:
    words = first_sentence(method)
    return {"algo": name, "verb": verb, "what": words, "recipes": ", ".join(recipes)}


def first_sentence(method: type) -> str:
    """The first sentence of the file that defines a method."""
    text = sys.modules[method.__module__].__doc__ or ""
    return text.splitlines()[0].partition(". ")[0].rstrip(".") if text else ""


def _print(found: dict[str, Rows]) -> None:
    from .table import show

    for i, rows in enumerate(found.values()):
        if i:
            print()
        show(list(rows[0]), [list(row.values()) for row in rows])
