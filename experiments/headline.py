"""The table at the head of a report: every policy with its intervals and its difference from the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .compare import p_value
from .page import table
from .plots import color_of, interval_plot, number
from .standings import Entry
from .statistics import Interval

COLUMNS = {
    "success": "Success, 95 %",
    "return": "Return, 95 %",
    "score": "Normalised score",
    "goal": "Time to goal",
}
DRAWN = ("success", "return")
"""columns that also show the interval as a picture"""


def headline(entries: Sequence[Entry], beside: Sequence[Entry] = ()) -> str:
    """The table as HTML; `beside` are the same entries with another reference, for a second column of differences."""
    found = [entry.intervals() for entry in entries]
    columns = {name: [intervals[name] for intervals in found] for name in COLUMNS}
    columns = {name: values for name, values in columns.items() if any(values)}
    rows = [
        [
            _title(entry),
            _episodes(entry),
            *(_cell(name, values, i, entry.color) for name, values in columns.items()),
            _versus(entry),
            *(_versus(other) for other in beside[i : i + 1]),
        ]
        for i, entry in enumerate(entries)
    ]
    differences = ["Difference from the base", "from the best"] if beside else ["Difference"]
    return table(["Policy", "Episodes", *(COLUMNS[name] for name in columns), *differences], rows)


def _title(entry: Entry) -> str:
    ledger = entry.ledgers[0]
    facts = [ledger.sampler, "deterministic" if ledger.deterministic else "", _spread(entry)]
    sub = "".join(f"<small>{escape(fact)}</small>" for fact in facts if fact)
    return f'<i style="background:{color_of(entry.color)}"></i><b>{escape(entry.name)}</b>{sub}'


def _episodes(entry: Entry) -> str:
    runs, episodes = entry.grid("seed").shape
    return f"{episodes:,}" if runs == 1 else f"{runs} &times; {episodes:,}"


def _spread(entry: Entry) -> str:
    """The lowest and highest run, where there are several."""
    if len(entry.ledgers) == 1:
        return ""
    means = entry.grid("success" if entry.binary else "returns").mean(1)
    show = _show("success" if entry.binary else "return")
    return f"runs from {show(float(means.min()))} to {show(float(means.max()))}"


def _show(name: str) -> Callable[[float], str]:
    shows = {
        "success": lambda x: f"{100 * x:.1f}",
        "score": lambda x: f"{x:.1f}",
        "goal": lambda x: f"{x:.2f}",
    }
    return shows.get(name, number)


def _cell(name: str, values: Sequence[Interval | None], row: int, color: int) -> str:
    value = values[row]
    if value is None:
        return "&ndash;"
    show, unit = _show(name), {"success": " %", "goal": " s"}.get(name, "")
    text = f"<b>{show(value.mean)}{unit}</b><small>{show(value.low)} to {show(value.high)}</small>"
    if name not in DRAWN:
        return text
    known = [v for v in values if v is not None]
    limits = (0.0, 1.0) if name == "success" else (min(v.low for v in known), max(v.high for v in known))
    return text + interval_plot(value.low, value.mean, value.high, limits=limits, color=color)


def _versus(entry: Entry) -> str:
    found = entry.versus()
    if isinstance(found, str):
        return f"<small>{escape(found)}</small>"
    percent = entry.binary and entry.reference is not None and entry.reference.binary
    delta = found.difference.scaled(lambda x: 100 * x) if percent else found.difference
    tone = "" if not found.sure else "good" if delta.mean > 0 else "bad"
    show: Callable[[float], str] = (lambda x: f"{x:+.1f}") if percent else (lambda x: f"{x:+.4g}")
    p = "" if found.p is None else f", {p_value(found.p)}"
    unit = " points" if percent else ""
    interval = f"{show(delta.low)} to {show(delta.high)}"
    return f'<b class="{tone}">{show(delta.mean)}{unit}</b><small>{interval}{p}</small>'
