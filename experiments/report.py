"""One self-contained HTML page about one run or several, made from what lies in the run folders.

Read, each only if there:

    config.json     configuration, versions, git revision
    metrics.jsonl   `eval/...`, `rollout/...`, `train/...` over `env_steps`, `grad_steps`, `wall_s`;
                    `<key>_low` and `<key>_high` become bands; `time/<part>_s`: seconds a line spent in a part
    eval/*.json     ledgers by name: `base` or `teacher`, which others are compared with, `tuned`, `final`,
                    `student`; a number is the step of an evaluation in training, the last tuned, 0 the base or,
                    in training without one, the start
    pictures.json   paths, films and denoising chains by policy; schema in `pictures.py`

Runs that differ only in their seed share a row and a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from ..files import atomic_write
from . import drawings, page
from .curves import Group, load
from .headline import headline
from .plots import Line, Pixels, legend, line_plot, number, percent, shares
from .progress import duration
from .standings import COLORS, entries, findings

LEARNING = {
    "eval/success_rate": "Success rate, evaluation",
    "rollout/success_rate": "Success rate, training",
    "eval/mean_reward": "Return, evaluation",
    "rollout/ep_rew_mean": "Return, training",
    "train/loss": "Training loss",
    "eval/loss": "Held-out loss",
}
"""metrics drawn large, over steps and over time"""
KNOWN = {
    "train/approx_kl": "KL from the last policy",
    "train/clip_fraction": "Share of clipped ratios",
    "train/explained_variance": "Explained variance of the critic",
    "train/policy_gradient_loss": "Policy loss",
    "train/value_loss": "Value loss",
    "train/learning_rate": "Learning rate",
    "time/fps": "Environment steps per second",
}
"""metrics drawn small; other `train/...` follow under their own names"""


def report(paths: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the report of one or more run folders.

    Args:
        paths: run folders.
        out: where to write; None: report.html in the first folder.

    Returns:
        Where it was written.

    Raises:
        UserError: for a path that is no run folder, or a file in it that cannot be read.
    """
    target = Path(out) if out else Path(paths[0]) / "report.html"
    atomic_write(target, render(load(paths)))
    return target


def render(groups: Sequence[Group]) -> str:
    """The page as a string."""
    policies = entries(groups)
    said = "".join(f'<p class="finding">{escape(s)}.</p>' for s in findings(policies))
    title = _title(groups)
    body = [
        f'<header><h1>{escape(title)}</h1><p class="meta">{_meta(groups)}</p></header>',
        said,
        page.section("Policies", headline(policies) + _table_note(groups)) if policies else "",
        page.section("Learning", _learning(groups)),
        page.section("Behaviour", *_behaviour(groups)),
        page.section("Training in detail", _details(groups)),
        page.section("Where the time went", *(_time(group, len(groups) > 1) for group in groups)),
        page.section("Configuration", _config_difference(groups), *(_config(group) for group in groups)),
        page.section("Made with", *(_provenance(group) for group in groups)),
    ]
    return page.page(title, "".join(body))


def _title(groups: Sequence[Group]) -> str:
    envs = {ledger.env for group in groups for run in group.runs for ledger in run.ledgers.values()}
    names = " and ".join(group.name for group in groups[:3])
    return f"{names} on {', '.join(sorted(envs))}" if envs else names


def _meta(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    last = [run.rows[-1] for run in runs if run.rows]
    facts = [f"{len(runs)} runs" if len(runs) > 1 else ""]
    for key, unit in (("env_steps", "environment steps"), ("grad_steps", "gradient steps")):
        if total := sum(row.get(key) or 0 for row in last):
            facts.append(f"{total:,.0f} {unit}")
    if wall := sum(row.get("wall_s") or 0 for row in last):
        facts.append(duration(float(wall)))
    return " · ".join(fact for fact in facts if fact)


def _table_note(groups: Sequence[Group]) -> str:
    single = (
        "Every episode is fixed by its seed. Success: Wilson interval; return: bootstrap interval. "
        "Differences are between the same episodes, with McNemar's exact test for success and a sign-flip "
        "permutation test for returns."
    )
    several = "Several runs share a row: their intervals redraw both runs and episodes, and have no p-value."
    return f'<p class="note">{single} {several if any(len(g.runs) > 1 for g in groups) else ""}</p>'


def _learning(groups: Sequence[Group]) -> str:
    figures = []
    for key, title in LEARNING.items():
        figures += [_figure(groups, key, title, x) for x in (_steps(groups, key), "wall_s")]
    drawn = [f for f in figures if f]
    names = {group.name: group.color for group in groups}
    note = _band_note(groups)
    return (
        (legend(names) if len(names) > 1 else "") + f'<div class="grid2">{"".join(drawn)}</div>{note}' if drawn else ""
    )


def _band_note(groups: Sequence[Group]) -> str:
    several = any(len(group.runs) > 1 for group in groups)
    text = "Bands of several runs are their range, the curve is their mean." if several else "Bands are 95 % intervals."
    return f'<p class="note">{text}</p>'


def _details(groups: Sequence[Group]) -> str:
    logged = [key for group in groups for key in group.metric_names() if key.startswith("train/")]
    others = {key: key for key in logged if key not in LEARNING and not key.endswith(("_low", "_high"))}
    figures = [_figure(groups, key, title, "", width=300, height=170) for key, title in (others | KNOWN).items()]
    return f'<div class="grid3">{"".join(figures)}</div>' if any(figures) else ""


def _figure(groups: Sequence[Group], key: str, title: str, x: str, **size: Pixels) -> str:
    x = x or _steps(groups, key)
    lines = _lines(groups, key, x)
    if not lines:
        return ""
    show_x, label = (number, x.replace("_", " "))
    if x == "wall_s":
        longest = max(float(line.x[-1]) for line in lines)
        unit, seconds = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if longest >= 2 * s or s == 1)
        lines = [replace(line, x=line.x / seconds) for line in lines]
        label = f"wall-clock, {unit}"
    show_y = percent if key.endswith(("success_rate", "fraction")) else number
    return page.figure(title, line_plot(lines, xlabel=label, show_x=show_x, show_y=show_y, **size))


def _steps(groups: Sequence[Group], key: str) -> str:
    """What counts: environment steps, or gradient steps where there are no others."""
    return "env_steps" if any(line.x[-1] > line.x[0] for line in _lines(groups, key, "env_steps")) else "grad_steps"


def _lines(groups: Sequence[Group], key: str, x: str) -> list[Line]:
    return [line for group in groups if (line := group.line(key, x)) is not None]


def _time(group: Group, several: bool) -> str:
    parts: dict[str, float] = {}
    for run in group.runs:
        for row in run.rows:
            for key, value in row.items():
                if key.startswith("time/") and key.endswith("_s") and value:
                    name = key.removeprefix("time/").removesuffix("_s").replace("_", " ")
                    parts[name] = parts.get(name, 0.0) + float(value)
    if not parts:
        return ""
    heading = f"<h3>{escape(group.name)}</h3>" if several else ""
    return heading + shares(parts, show=duration)


def _behaviour(groups: Sequence[Group]) -> list[str]:
    """Pictures of the first run of every group that has some."""
    parts = []
    for group in groups:
        pictures, heading = group.runs[0].pictures, f"{group.name}: " if len(groups) > 1 else ""
        beside = [_paths(pictures["trajectories"], heading)]
        beside += [_chain(name, record, heading) for name, record in pictures["chains"].items()]
        if drawn := [part for part in beside if part]:
            parts.append(f'<div class="beside">{"".join(drawn)}</div>')
        parts += [_film(name, record, heading) for name, record in pictures["films"].items()]
    return parts


def _paths(recorded: dict[str, Any], heading: str) -> str:
    flat = {name: record for name, record in recorded.items() if drawings.has_plane(record)}
    if not flat:
        return ""
    colors = {name: COLORS.get(name, 2 + i % 3) for i, name in enumerate(flat)}
    note = '<p class="note">Rings: starts. Green discs: goals. Crosses: episodes that end without success.</p>'
    return f"<div><h3>{escape(heading)}Paths</h3>{drawings.plane(flat, colors)}{note}</div>"


def _chain(name: str, record: dict[str, Any], heading: str) -> str:
    title = f"{heading}One action chunk of {name}, from noise to action"
    count = len(record["x"])
    note = f"{count} noises for one observation; each path is a chunk, its first action darkest." if count > 1 else ""
    return f'<div><h3>{escape(title)}</h3>{drawings.chain(record)}<p class="note">{note}</p></div>'


def _film(name: str, record: dict[str, Any], heading: str) -> str:
    title = f"{heading}An episode of {name} (seed {record['seed']})"
    return f"<h3>{escape(title)}</h3>{drawings.film(record, COLORS.get(name, 2))}"


def _flat_config(group: Group) -> dict[str, Any]:
    return page.flatten(group.runs[0].facts["config"])


def _config_difference(groups: Sequence[Group]) -> str:
    """What differs between the groups, side by side."""
    if len(groups) < 2:
        return ""
    configs = [_flat_config(group) for group in groups]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [
        [escape(key), *(escape(str(config.get(key, "-"))) for config in configs)]
        for key in keys
        if len({str(config.get(key)) for config in configs}) > 1
    ]
    return page.table(["Differs in", *(group.name for group in groups)], rows)


def _config(group: Group) -> str:
    return page.details(f"Everything {group.name} was set to", _flat_config(group))


def _provenance(group: Group) -> str:
    facts = dict(group.runs[0].facts)
    facts.pop("config")
    named = {"git": "revision", "data_hash": "data"}
    values = {named.get(k, k.removeprefix("versions.")): v for k, v in page.flatten(facts).items() if v != ""}
    return page.details(f"Versions of {group.name}", values)
