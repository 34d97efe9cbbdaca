"""The page of `noisepilot run --report`: what was commanded, where chunks met, how long planning took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from . import page
from .plots import Line, line_plot, number

STRETCH = 200
"""commands that are drawn: enough to see seams"""
ELEMENTS = 12
"""of the action that are drawn"""


def render(report: Mapping[str, Any], traces: Sequence[Mapping[str, Any]], spec: Any, name: str) -> str:
    """The page as a string; `traces` are those of `run_loop`, `spec` the policy's."""
    title = f"{name} in mode {report['mode']}"
    meta = f"{spec.env or 'no known environment'} · {report['hz']:g} Hz · execute {report['execute']} of {spec.horizon}"
    body = [
        f'<header><h1>{escape(title)}</h1><p class="meta">{escape(meta)}</p></header>',
        *(f'<p class="finding">{escape(sentence)}</p>' for sentence in words(report)),
        page.section("Commands", _commands(traces, spec, report["hz"])),
        page.section("Planning", _planning(traces, report)),
        page.section("Episodes", _episodes(report)),
        page.details("All numbers", page.flatten({k: v for k, v in report.items() if k != "episodes"})),
    ]
    return page.page(title, "".join(body))


def words(report: Mapping[str, Any]) -> list[str]:
    """What happened, in plain sentences."""
    steps, said = report["steps"], []
    ms = report["inference_ms"]
    if ms["count"]:
        said.append(
            f"A plan took {number(ms['p50'])} ms (99 %: {number(ms['p99'])} ms), and at most "
            f"{report['consumed_max']} ticks passed meanwhile."
        )
    late = f", by at most {report['late_ms_max']:.1f} ms" if report["misses"] else ""
    said.append(f"{report['misses']} of {steps} deadlines were missed{late}.")
    if report["starved"]:
        cure = {
            "sync": "that is what sync does under delay; async goes on meanwhile",
            "async": "execute fewer actions of each chunk, or make planning faster",
        }
        said.append(
            f"{report['starved']} times there was no plan and the action before was held: "
            f"{cure.get(report['mode'], cure['async'])}."
        )
    useless = f"chunks were of no use, the first: {report['fault']}"
    for key, what in (("held", "commands were not finite and repeated"), ("refused", useless)):
        said += [f"{report[key]} {what}."] if report[key] else []
    seams, inside = report["jerk"]["seams"], report["jerk"]["inside"]
    if seams is not None and inside:
        said.append(f"Where chunks meet, commands jerk {number(seams / inside)} times as hard as inside.")
    return said


def _commands(traces: Sequence[Mapping[str, Any]], spec: Any, hz: float) -> str:
    if not traces or not traces[0]["commands"]:
        return ""
    commands = np.array(traces[0]["commands"][:STRETCH])
    sources = np.array(traces[0]["sources"][:STRETCH])
    seams = np.flatnonzero(np.diff(sources)) + 1
    names = spec.action.get("names") or [str(i) for i in range(commands.shape[1])]
    seconds = np.arange(len(commands)) / hz
    figures = []
    for i, name in enumerate(names[:ELEMENTS]):
        unit = f" ({spec.action['unit']})" if spec.action.get("unit") else ""
        lines = [Line(name, seconds, commands[:, i]), *_rules(seconds, seams, commands[:, i])]
        figures.append(page.figure(f"{name}{unit}", line_plot(lines, xlabel="seconds", show_x=number)))
    held = int((sources < 0).sum())
    note = f"Episode {traces[0]['seed']}, its first {len(commands)} commands; grey: another chunk begins ({len(seams)})"
    return f'<div class="grid2">{"".join(figures)}</div><p class="note">{note}; {held} were held.</p>'


def _rules(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> list[Line]:
    # One curve with gaps: a vertical stroke at each seam.
    if not len(at):
        return []
    low, high = float(values.min()), float(values.max())
    places = np.stack([x[at], x[at], np.full(len(at), np.nan)], 1).ravel()
    heights = np.tile([low, high, np.nan], len(at))
    return [Line("another chunk", places, heights, color=5)]


def _planning(traces: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> str:
    plans = np.array([plan for trace in traces for plan in trace["plans"]], dtype=float).reshape(-1, 3)
    late = np.array([1e3 * s for trace in traces for s in trace["late_s"]])
    figures = []
    if len(plans):
        share = 100 * (np.arange(len(plans)) + 1) / len(plans)
        figures = [
            ("Plans that took at most so long", Line("plans", np.sort(1e3 * plans[:, 2]), share), "ms", _percent),
            (
                "Actions consumed during a plan",
                Line("actions", np.arange(len(plans), dtype=float), plans[:, 1]),
                "plan",
                number,
            ),
        ]
    if late.any():
        by = Line("lateness", np.arange(len(late)) / report["hz"], late)
        figures.append(("Milliseconds by which deadlines were missed", by, "seconds", number))
    return '<div class="grid2">{}</div>'.format(
        "".join(
            page.figure(title, line_plot([line], xlabel=xlabel, show_x=number, show_y=show))
            for title, line, xlabel, show in figures
        )
    )


def _percent(x: float) -> str:
    return f"{x:.3g} %"


def _episodes(report: Mapping[str, Any]) -> str:
    success = {None: "-", 0.0: "no"}
    rows = [
        [
            str(episode["seed"]),
            "lost" if episode["return"] is None else f"{episode['return']:.4g}",
            str(episode["length"]),
            success.get(episode["success"], "yes"),
        ]
        for episode in report["episodes"]
    ]
    return page.table(["Seed", "Return", "Steps", "Success"], rows)
