"""Pictures of a policy at work as SVG: paths in a plane, a denoising chain, a film strip. Input: pictures.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from .plots import SERIES, color_of, heat_strip, legend, path_of, svg

POSITION, GOAL = "state", "goal"
"""observations whose first two numbers are where the body and its goal are"""
PANELS = 9
"""latents of a chain that are shown"""
FRAMES = 8
Place = Callable[[float, float], tuple[float, float]]
"""position in the plane to pixels"""


def plane(recorded: Mapping[str, Mapping[str, Any]], colors: Mapping[str, int]) -> str:
    """Paths of every policy's episodes on one map: walls, starts (rings), goals (discs), failures (crosses).

    Args:
        recorded: `trajectories` of pictures.json, one environment.
        colors: policy name to series colour.
    """
    names = {f"{name}: {_tally(record['episodes'])}": colors[name] for name, record in recorded.items()}
    return f'{legend(names)}<div class="plane">{_map(recorded, colors, width=560)}</div>'


def has_plane(record: Mapping[str, Any]) -> bool:
    """The environment is one whose states show as a path: it has walls or a goal in the plane."""
    states = record["episodes"][0]["states"] if record["episodes"] else {}
    return bool(record["walls"] or GOAL in states) and len(states.get(POSITION, [[]])[0]) >= 2


def chain(record: Mapping[str, Any]) -> str:
    """Small multiples over denoising time: two action dimensions as paths in their plane, others as curves."""
    x = np.asarray(record["x"], dtype=float)
    shown = np.unique(np.linspace(0, x.shape[1] - 1, PANELS).round().astype(int))
    flat = x.shape[-1] == 2
    # Early latents are wide noise; the view is that of the actions, a little of the noise falls outside.
    low, high = x[:, -1].min((0, 1)), x[:, -1].max((0, 1))
    margin = np.maximum(0.35 * (high - low), 0.05 * np.abs(high).max() + 1e-6)
    low, high = low - margin, high + margin
    panel = _flat_panel if flat else _curve_panel
    captions = [f"k = {k}<small>t = {record['t'][k]:.2f}</small>" for k in shown]
    cells = _strip((panel(x[:, k], low, high) for k in shown), captions)
    names = {} if flat else {name: i for i, name in enumerate(record["names"][:SERIES])}
    return (legend(names) if names else "") + cells


def film(record: Mapping[str, Any], color: int) -> str:
    """Rendered frames in a row with their times; without frames the states of the episode, and why."""
    if record["frames"]:
        images = (f'<img src="{escape(frame)}" alt="rendered frame"/>' for frame in record["frames"])
        return _strip(images, [f"{time:.2f} s" for time in record["times_s"]])
    note = f'<p class="note">Drawn from states, not rendered: {escape(record["note"])}</p>'
    path = {"walls": record["walls"], "episodes": [record["episode"]]}
    return note + (_film_of_path(path, color) if has_plane(path) else states(record["episode"]))


def _film_of_path(record: Mapping[str, Any], color: int) -> str:
    """The path so far at `FRAMES` moments."""
    (episode,) = record["episodes"]
    length = len(episode["states"][POSITION])
    ends = np.unique(np.linspace(1, length, FRAMES).round().astype(int)).tolist()
    maps = (
        _map({"path": dict(record, episodes=[_until(episode, end, last=end == length)])}, {"path": color}, width=120)
        for end in ends
    )
    return _strip(maps, [f"step {end - 1}" for end in ends])


def _until(episode: Mapping[str, Any], end: int, *, last: bool) -> dict[str, Any]:
    cut = {name: values[:end] for name, values in episode["states"].items()}
    return dict(episode, states=cut, success=episode["success"] or not last)


def _strip(pictures: Iterable[str], captions: Sequence[str]) -> str:
    cells = zip(pictures, captions, strict=True)
    figures = "".join(f"<figure>{picture}<figcaption>{text}</figcaption></figure>" for picture, text in cells)
    return f'<div class="strip film">{figures}</div>'


def states(episode: Mapping[str, Any], *, columns: int = 160) -> str:
    """Every number of the observations over an episode as one heat strip."""
    rows, names = [], []
    for name, values in episode["states"].items():
        table = np.asarray(values, dtype=float)
        kept = np.unique(np.linspace(0, len(table) - 1, columns).round().astype(int))
        rows += list(table[kept].T)
        names += [f"{name}[{i}]" for i in range(table.shape[1])]
    return heat_strip(np.array(rows), names)


def _map(recorded: Mapping[str, Mapping[str, Any]], colors: Mapping[str, int], *, width: float) -> str:
    """Walls, paths and goals; of the ring of walls around a maze only the inner half is shown."""
    places = sorted({tuple(w) for record in recorded.values() for w in record["walls"]})
    left, bottom, w, h = _box(recorded, places)
    scale = width / w

    def to(x: float, y: float) -> tuple[float, float]:
        return (x - left) * scale, (bottom + h - y) * scale  # y points up

    small = width < 300
    body = [_wall(to(x, y + dy), dx * scale, dy * scale) for x, y, dx, dy in places]
    for name, record in recorded.items():
        body += [_path(e, name, color_of(colors[name]), to, small) for e in record["episodes"]]
    first = next(iter(recorded.values()))
    body += [_goal(episode, to, small) for episode in first["episodes"]]
    frame = f'<rect class="panel" width="{width}" height="{h * scale:.1f}"/>'
    return svg(width, round(h * scale, 1), frame + "".join(body), label="paths of " + ", ".join(recorded))


def _box(recorded: Mapping[str, Mapping[str, Any]], places: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Left, bottom, width and height that hold all walls and paths."""
    episodes = [episode["states"] for record in recorded.values() for episode in record["episodes"]]
    points = [np.asarray(e[name])[:, :2] for e in episodes for name in (POSITION, GOAL) if name in e]
    points += [np.array([[x, y], [x + w, y + h]]) for x, y, w, h in places]
    joined = np.concatenate(points)
    margin = -0.5 if places else 0.05 * np.ptp(joined, axis=0).max() + 1e-6
    low, high = joined.min(0) - margin, joined.max(0) + margin
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def _wall(corner: tuple[float, float], width: float, height: float) -> str:
    # Half a pixel over the edge closes the seams between neighbouring blocks.
    x, y = corner
    return f'<rect class="wall" x="{x:.1f}" y="{y:.1f}" width="{width + 0.5:.1f}" height="{height + 0.5:.1f}"/>'


def _path(episode: Mapping[str, Any], name: str, color: str, to: Place, small: bool) -> str:
    points = [to(*p[:2]) for p in episode["states"][POSITION]]
    (x0, y0), (x1, y1) = points[0], points[-1]
    outcome = "reached the goal" if episode["success"] else "failed"
    data = path_of([p[0] for p in points], [p[1] for p in points])
    cross = "" if episode["success"] else f'<path class="fail" style="stroke:{color}" d="{_cross(x1, y1, 3 if small else 5)}"/>'
    return (
        f'<path class="trace" style="stroke:{color}" d="{data}">'
        f"<title>{escape(name)}, seed {episode['seed']}: {outcome}, return {episode['return']:g}</title></path>"
        f'<circle class="start" style="stroke:{color}" cx="{x0:.1f}" cy="{y0:.1f}" r="{2 if small else 4}"/>{cross}'
    )


def _goal(episode: Mapping[str, Any], to: Place, small: bool) -> str:
    if GOAL not in episode["states"]:
        return ""
    x, y = to(*episode["states"][GOAL][-1][:2])
    return (
        f'<circle class="goal" cx="{x:.1f}" cy="{y:.1f}" r="{3 if small else 5.5}"><title>goal of seed {episode["seed"]}</title></circle>'
    )


def _tally(episodes: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(e['success'] for e in episodes)} of {len(episodes)} reach the goal"


def _flat_panel(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Chunks x (B, H, 2) as paths through the action plane, their first action marked."""
    unit = (x - low) / (high - low)
    body = []
    for points in 6 + 108 * np.stack([unit[..., 0], 1 - unit[..., 1]], -1):
        body.append(f'<path class="chunk" style="stroke:{color_of(0)}" d="{path_of(points[:, 0], points[:, 1])}"/>')
        body += [_dot(px, py, h, len(points)) for h, (px, py) in enumerate(points)]
    return _panel("".join(body), "a chunk of actions in their plane")


def _curve_panel(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Chunks x (B, H, A) over the horizon, one colour per action dimension, all on their own scale."""
    unit = (x - low) / (high - low)
    steps = 6 + 108 * np.arange(x.shape[1]) / max(x.shape[1] - 1, 1)
    body = [
        f'<path class="chunk" style="stroke:{color_of(a)}" d="{path_of(steps, 6 + 108 * (1 - chunk[:, a]))}"/>'
        for chunk in unit
        for a in range(min(x.shape[-1], SERIES))
    ]
    return _panel("".join(body), "a chunk of actions over the horizon")


def _dot(x: float, y: float, step: int, horizon: int) -> str:
    # Later actions of the chunk are fainter, so that its direction shows.
    opacity = 1 - 0.75 * step / max(horizon - 1, 1)
    if not (math.isfinite(x) and math.isfinite(y)):
        return ""
    return f'<circle style="fill:{color_of(0)};opacity:{opacity:.2f}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>'


def _cross(x: float, y: float, r: float) -> str:
    return f"M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}M{x - r:.1f} {y + r:.1f}L{x + r:.1f} {y - r:.1f}"


def _panel(body: str, label: str) -> str:
    return svg(120, 120, f'<rect class="panel" x="0.5" y="0.5" width="119" height="119" rx="6"/>{body}', label=label)
