"""The page of a bake-off: who is best, how surely, at what cost, over which experience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from . import page
from .bakeoff_results import GREY, PARTS, Contest, Result
from .compare import Difference
from .headline import headline
from .plots import Line, legend, line_plot, number, percent, shares
from .progress import duration
from .statistics import Interval

AXES = {"env_steps": "environment steps", "grad_steps": "gradient steps", "wall_s": "seconds of training"}


def render(contest: Contest, facts: Mapping[str, Any]) -> str:
    """The page as a string; `facts` are policy, budget and seeds."""
    title = f"Bake-off on {contest.base.env}"
    meta = (
        f"base {facts['policy']} · {facts['budget'].replace('=', ' ')} per run · {facts['seeds']} seeds per method · "
        f"{len(contest.base)} evaluation episodes"
    )
    body = [
        f'<header><h1>{escape(title)}</h1><p class="meta">{escape(meta)}</p></header>',
        f'<p class="finding">{escape(words(contest))}</p>',
        page.section("After training", _table(contest), _note(contest)),
        page.section("Learning", _curves(contest)),
        page.section("Cost of a run", _costs(contest)),
        page.section("What failed", _failures(contest)),
        page.section("Settings", *(_settings(result) for result in contest.results)),
    ]
    return page.page(title, "".join(body))


def words(contest: Contest) -> str:
    """The outcome in plain sentences."""
    failures = [f"{name} failed ({reason})." for name, reason in contest.failed.items()]
    best = contest.best
    if best is None:
        return " ".join(["No method finished.", *failures])
    first = (
        f"{best.name} is best."
        if _sign(contest, best) > 0
        else (f"No method is shown to be better than the base; {best.name} comes first.")
    )
    said = [first, _sentence(contest.entry(best).finding())]
    if len(contest.results) > 1:
        second = contest.results[1]
        said.append(_sentence(contest.entry(best, second).finding()))
    worse = [result.name for result in contest.results if _sign(contest, result) < 0]
    if worse:
        said.append(f"Worse than the base: {', '.join(worse)}.")
    said.append(_spent(best))
    return " ".join(part for part in [*said, *failures] if part)


def _sentence(finding: str) -> str:
    return f"{finding}." if finding else ""


def _sign(contest: Contest, result: Result) -> float:
    """Above 0: surely better than the base; below: surely worse."""
    found = contest.entry(result).versus()
    return found.difference.mean if isinstance(found, Difference) and found.sure else 0.0


def _spent(result: Result) -> str:
    cost = result.cost
    seconds = {part: cost[f"{part}_s"] for part in PARTS}
    most = max(seconds, key=lambda part: seconds[part])
    share = seconds[most] / (sum(seconds.values()) or 1.0)
    names = {"env": "the environment", "sampling": "sampling actions", "update": "gradient steps"}
    return (
        f"A run of {result.name} took {cost['env_steps']:,.0f} environment steps, {cost['grad_steps']:,.0f} gradient "
        f"steps and {duration(cost['wall_s'])}, {percent(share)} of it in {names[most]}."
    )


def _table(contest: Contest) -> str:
    best = contest.best
    if best is None:
        return ""
    base = contest.base_entry(len(best.final))
    entries = [*(contest.entry(result) for result in contest.results), base]
    first = replace(entries[0], reference=None)
    return headline(entries, [first, *(replace(entry, reference=first) for entry in entries[1:])])


def _note(contest: Contest) -> str:
    several = any(len(result.final) > 1 for result in contest.results)
    how = (
        "Intervals redraw runs and episodes, 95 %; a difference whose interval leaves out 0 is one."
        if several
        else "95 % intervals over episodes; differences are between equal episodes (McNemar's test or sign flips)."
    )
    return f'<p class="note">Every method began with the same base and met the same evaluation episodes. {how}</p>'


def _curves(contest: Contest) -> str:
    names = {result.name: result.color for result in contest.results} | {"base": GREY}
    title = "Success rate" if contest.binary else "Return"
    show = percent if contest.binary else number
    figures = []
    for axis, label in AXES.items():
        lines = [line for result in contest.results if (line := _line(result, axis)) is not None]
        if lines:
            lines.append(_base_line(contest, max(float(line.x[-1]) for line in lines)))
            figures.append(
                page.figure(f"{title} over {label}", line_plot(lines, xlabel=label, show_x=number, show_y=show))
            )
    note = '<p class="note">Means of the runs with 95 % intervals over runs and episodes; grey: the base.</p>'
    return f'{legend(names)}<div class="grid2">{"".join(figures)}</div>{note}' if figures else ""


def _line(result: Result, axis: str) -> Line | None:
    points = result.curve
    if len(points) < 2:
        return None
    x = np.array([point.at[axis] for point in points])
    y, low, high = (np.array([getattr(point.value, part) for point in points]) for part in ("mean", "low", "high"))
    return Line(result.name, x, y, low, high, color=result.color)


def _base_line(contest: Contest, until: float) -> Line:
    value: Interval | None = contest.base.success_interval() if contest.binary else contest.base.return_interval()
    assert value is not None
    x, ones = np.array([0.0, until]), np.ones(2)
    return Line("base", x, ones * value.mean, ones * value.low, ones * value.high, color=GREY)


def _costs(contest: Contest) -> str:
    rows = [
        [
            escape(result.name),
            f"{result.cost['env_steps']:,.0f}",
            f"{result.cost['grad_steps']:,.0f}",
            duration(result.cost["wall_s"]),
            *(duration(result.cost[f"{part}_s"]) for part in PARTS),
        ]
        for result in contest.results
    ]
    head = ["Method", "Environment steps", "Gradient steps", "Training", "Environment", "Sampling", "Updates"]
    bars = [
        f"<h3>{escape(result.name)}</h3>" + shares({p: result.cost[f"{p}_s"] for p in PARTS}, show=duration)
        for result in contest.results
    ]
    return page.table(head, rows) + "".join(bars) if rows else ""


def _failures(contest: Contest) -> str:
    rows = [[escape(name), escape(reason)] for name, reason in contest.failed.items()]
    return page.table(["Method", "Why"], rows) if rows else ""


def _settings(result: Result) -> str:
    return page.details(result.name, page.flatten(result.runs[0].facts["config"]))
