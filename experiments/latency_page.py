"""The page of a policy under delay: which mode, how many actions, what the seams cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from . import page
from .latency import Cell, Curve, mean_seconds
from .plots import Line, legend, line_plot, number, percent
from .statistics import Interval

DELAY = "delay in ms"


def render(curve: Curve, advice: Sequence[str]) -> str:
    """The page as a string."""
    title = f"Delay on {curve.env}"
    first = curve.cells[0]
    faults = [
        f"jitter up to {first.delays.jitter_ms:g} ms" if first.delays.jitter_ms else "",
        f"{percent(first.delays.drop)} of the observations lost" if first.delays.drop else "",
    ]
    meta = [curve.policy, f"{curve.hz:g} Hz", f"chunks of {curve.horizon} actions"]
    meta += [f"{len(first.played.ledger)} episodes each", *faults]
    body = [
        f'<header><h1>{escape(title)}</h1><p class="meta">{escape(" · ".join(filter(None, meta)))}</p></header>',
        *(f'<p class="finding">{escape(sentence)}</p>' for sentence in advice),
        page.section("Against delay", _figures(curve), NOTE),
        page.section("Every cell", _table(curve), _skipped(curve)),
    ]
    return page.page(title, "".join(body))


NOTE = (
    '<p class="note">Simulated clock: a chunk becomes visible so many ticks after its observation, and meanwhile the '
    "simulator goes on. Every episode begins when its first plan is there. sync: the robot holds its last action until "
    "the new chunk is there; async: it goes on with the old one; rtc: likewise, and the new chunk continues what is "
    "committed. Success with Wilson's 95 % interval, returns with a bootstrapped one. Jerk: mean third difference of "
    "commands, as a fraction of the action's range.</p>"
)


def _series(curve: Curve) -> dict[str, list[Cell]]:
    """Cells that make one line: a mode, with its first number of executed actions where several were asked for."""
    place: dict[str, list[Cell]] = {}
    for cells in curve.at.values():
        seen: dict[str, int] = {}
        for cell in cells:
            nth = seen[cell.chunking.mode] = seen.get(cell.chunking.mode, -1) + 1
            place.setdefault(f"{cell.chunking.mode}/{nth}", []).append(cell)
    several = {name.partition("/")[0] for name in place if not name.endswith("/0")}
    return {(c[0].name if c[0].chunking.mode in several else c[0].chunking.mode): c for c in place.values()}


def _figures(curve: Curve) -> str:
    series = _series(curve)
    show = percent if curve.binary else number
    figures = [("Success rate" if curve.binary else "Return", _lines(series, value=curve.value), show)]
    figures.append(("Seconds per episode", _lines(series, number_of=mean_seconds), number))
    figures.append(("Jerk where chunks meet", _lines(series, number_of=lambda cell: _jerk(cell, "seams")), number))
    figures.append(("Ticks without a plan", _lines(series, number_of=lambda cell: cell.played.starved), percent))
    drawn = [
        page.figure(title, line_plot(lines, xlabel=DELAY, show_x=number, show_y=show)) for title, lines, show in figures
    ]
    names = {name: i for i, name in enumerate(series)}
    return f'{legend(names)}<div class="grid2">{"".join(drawn)}</div>'


def _lines(
    series: dict[str, list[Cell]],
    *,
    value: Callable[[Cell], Interval] | None = None,
    number_of: Callable[[Cell], float] | None = None,
) -> list[Line]:
    lines = []
    for color, (name, cells) in enumerate(series.items()):
        x = np.array([cell.delays.delay_ms for cell in cells])
        if value is not None:
            found = [value(cell) for cell in cells]
            y, low, high = (np.array([getattr(one, part) for one in found]) for part in ("mean", "low", "high"))
            lines.append(Line(name, x, y, low, high, color=color))
        elif number_of is not None:
            lines.append(Line(name, x, np.array([number_of(cell) for cell in cells]), color=color))
    return lines


def _jerk(cell: Cell, where: str) -> float:
    found = cell.played.jerk[where]
    return float("nan") if found is None else found


def _table(curve: Curve) -> str:
    show = percent if curve.binary else number
    head = ["Delay", "Mode", "Execute", "Success" if curve.binary else "Return", "95 % interval", "Seconds"]
    head += ["Without a plan", "Jerk at seams", "inside"]
    rows = [
        [
            f"{delay:g} ms<small>{cell.ticks} ticks</small>",
            escape(cell.chunking.mode),
            str(cell.chunking.execute),
            f"<b>{show(curve.value(cell).mean)}</b>",
            f"{show(curve.value(cell).low)} to {show(curve.value(cell).high)}",
            f"{mean_seconds(cell):.3g}",
            percent(round(cell.played.starved, 3)),
            *(number(_jerk(cell, where)) for where in ("seams", "inside")),
        ]
        for delay, cells in curve.at.items()
        for cell in cells
    ]
    return page.table(head, rows)


def _skipped(curve: Curve) -> str:
    words = "".join(f"<li>{escape(text)}</li>" for text in curve.skipped)
    return f"<h3>Not played</h3><ul>{words}</ul>" if words else ""
