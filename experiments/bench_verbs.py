"""The verb `bench`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from .cli import parse

if TYPE_CHECKING:
    from ..benchmarks.race import Row


@dataclass(frozen=True)
class Bench:
    """Measure speed beside its peers and the machine's limits, all in one run."""

    names: Positional[tuple[str, ...]] = ()
    """beginnings of row names, such as `sampler/batch1` or `env`; none: everything"""
    json: bool = False
    """print JSON"""
    quick: bool = False
    """only see that everything runs; the numbers mean little"""
    requests: int = 10_000
    """requests to the server of `serve`; a million takes minutes"""
    unet: bool = False
    """`runtime` also plays the large U-Net, which takes minutes"""
    compiled: bool = False
    """measure torch.compile too, which takes minutes to prepare"""


def bench(argv: Sequence[str]) -> int:
    """`noisepilot bench [NAMES...] [--json] [--quick]`: print one row per measurement."""
    options = parse(Bench, argv, "noisepilot bench")
    from ..benchmarks import suite
    from ..benchmarks.race import QUICK, Effort

    effort = QUICK if options.quick else Effort(requests=options.requests)
    effort = replace(effort, compiled=options.compiled, unet=options.unet)
    facts = suite.machine()
    rows = list(_announced(suite.run(options.names, effort)))
    if options.json:
        print(json.dumps([suite.as_dict(row) for row in rows], indent=1))
    else:
        _print(facts, rows)
    return 0


def _announced(rows: Iterable[Row]) -> Iterable[Row]:
    for row in rows:
        print(f"{row.name}: {row.note or f'{row.value:.4g} {row.unit}'}", file=sys.stderr, flush=True)
        yield row


def _print(facts: dict[str, Any], rows: Sequence[Row]) -> None:
    from .table import show

    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(
        ("name", "value", "unit", "of limit", "times faster than", "beside a median"),
        [
            (
                row.name,
                "-" if row.note else f"{row.value:.4g}",
                row.unit,
                "" if row.fraction_of_limit is None else f"{100 * row.fraction_of_limit:.0f} %",
                ", ".join(f"{peer} {x:.2f}" for peer, x in (row.ratios or {}).items()),
                row.note or ", ".join(f"{name} {x:.3g}" for name, x in (row.spread or {}).items()),
            )
            for row in rows
        ],
    )
