"""The verbs `compare` and `report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..errors import UserError
from .cli import parse
from .compare import compare as compare_ledgers
from .compare import p_value
from .illustrate import illustrate
from .ledger import Ledger
from .plots import number
from .report import report as write_report
from .run_folder import RunFolder


@dataclass(frozen=True)
class Compare:
    """Is B better than A, and how sure? Both evaluated on the same seeds."""

    a: Positional[Path]
    """a ledger that `eval` wrote, or a run folder: its newest evaluation"""
    b: Positional[Path]
    """likewise"""
    json: bool = False
    """print JSON"""


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one run or several."""

    runs: Positional[tuple[Path, ...]]
    """run folders; those that differ only in their seed share a curve"""
    pictures: bool = True
    """run the policies for a few episodes and draw them, if the run has no pictures yet"""
    out: Path | None = None
    """where to write; by default report.html in the first run folder"""


def compare(argv: Sequence[str]) -> int:
    """`noisepilot compare A B [--json]`: print the comparison of two ledgers."""
    options = parse(Compare, argv, "noisepilot compare")
    found = compare_ledgers(find_ledger(options.a), find_ledger(options.b))
    print(json.dumps(found, indent=2) if options.json else as_text(found))
    return 0


def report(argv: Sequence[str]) -> int:
    """`noisepilot report RUN... [--out FILE]`: write a report and say where."""
    options = parse(Report, argv, "noisepilot report")
    if not options.runs:
        raise UserError("no run folder given: noisepilot report RUN...")
    if options.pictures:
        for path in options.runs:
            illustrate(RunFolder.open(path))
    print(write_report(options.runs, options.out))
    return 0


def find_ledger(path: Path) -> Ledger:
    """Read a ledger; of a run folder `final`, the newest evaluation of its training, or the only one.

    Raises:
        UserError: if there is none, or if a run folder leaves the choice open.
    """
    if not path.is_dir():
        return Ledger.load(path)
    run = RunFolder.open(path)
    names = sorted(p.stem for p in (run.path / "eval").glob("*.json"))
    steps = [name for name in names if name.isdecimal()]
    candidates = [name for name in names if name == "final"] or steps[-1:] or names
    if len(candidates) == 1:
        return Ledger.load(run.eval_path(candidates[0]))
    choice = f"choose one of {', '.join(str(run.eval_path(n)) for n in names)}" if names else "run eval first"
    raise UserError(f"{path} holds {len(names)} evaluations: {choice}")


def as_text(found: dict[str, Any]) -> str:
    """A comparison as a sentence and a small table."""
    lines = [found["sentence"] + ".", "", f"{'':10}{'A':>10}{'B':>10}{'B - A':>10}   95 % interval"]
    for name in ("success", "return"):
        if name in found:
            lines.append(_row(name, found[name], percent=name == "success"))
    return "\n".join(lines)


def _row(name: str, row: dict[str, Any], *, percent: bool) -> str:
    delta = row["difference"]
    a, b, d, low, high = (
        f"{100 * x:.1f} %" if percent else number(x)
        for x in (row["a"], row["b"], delta["mean"], delta["low"], delta["high"])
    )
    return f"{name:10}{a:>10}{b:>10}{d:>10}   {low} to {high}, {p_value(row['p'])}"
