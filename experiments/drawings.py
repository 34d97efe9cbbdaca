"""A policy at work as SVG, from pictures.json: paths in a plane, a denoising chain, a film strip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from .plots import SERIES, Pixels, color_of, heat_strip, legend, path_of, svg, tag, tooltip

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
    """Small multiples over denoising time: two action dimensions as paths in their plane, more as curves."""
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
        _map(
            {"path": dict(record, episodes=[_until(episode, end, last=end == length)])},
            {"path": color},
            width=120,
        )
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


def _map(recorded: Mapping[str, Mapping[str, Any]], colors: Mapping[str, int], *, width: Pixels) -> str:
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
    frame = tag("rect", class_="panel", width=width, height=h * scale)
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
    return tag("rect", class_="wall", x=x, y=y, width=width + 0.5, height=height + 0.5)


def _path(episode: Mapping[str, Any], name: str, color: str, to: Place, small: bool) -> str:
    points = np.array([to(*p[:2]) for p in episode["states"][POSITION]])
    (x0, y0), (x1, y1) = points[0].tolist(), points[-1].tolist()
    outcome = "reached the goal" if episode["success"] else "failed"
    hint = tooltip(f"{name}, seed {episode['seed']}: {outcome}, return {episode['return']:g}")
    stroke, r = f"stroke:{color}", 3 if small else 5
    trace = tag("path", hint, class_="trace", style=stroke, d=path_of(points[:, 0], points[:, 1]))
    start = tag("circle", class_="start", style=stroke, cx=x0, cy=y0, r=r - 1)
    if episode["success"]:
        return trace + start
    cross = f"M{x1 - r:.1f} {y1 - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}"
    return trace + start + tag("path", class_="fail", style=stroke, d=cross)


def _goal(episode: Mapping[str, Any], to: Place, small: bool) -> str:
    if GOAL not in episode["states"]:
        return ""
    x, y = to(*episode["states"][GOAL][-1][:2])
    hint = tooltip(f"goal of seed {episode['seed']}")
    return tag("circle", hint, class_="goal", cx=x, cy=y, r=3 if small else 5.5)


def _tally(episodes: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(e['success'] for e in episodes)} of {len(episodes)} reach the goal"


def _flat_panel(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Chunks x (B, H, 2) as paths through the action plane; later actions are fainter."""
    unit = (x - low) / (high - low)
    fade = np.linspace(1, 0.25, x.shape[1])
    body = []
    for points in 6 + 108 * np.stack([unit[..., 0], 1 - unit[..., 1]], -1):
        body.append(_chunk(points[:, 0], points[:, 1], 0))
        body += [
            tag("circle", style=f"fill:{color_of(0)};opacity:{o:.2f}", cx=px, cy=py, r=2.4)
            for (px, py), o in zip(points.tolist(), fade, strict=True)
        ]
    return _panel("".join(body), "a chunk of actions in their plane")


def _curve_panel(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Chunks x (B, H, A) over the horizon, one colour per action dimension, each on its own scale."""
    unit = 6 + 108 * (1 - (x - low) / (high - low))
    steps = np.linspace(6, 114, x.shape[1])
    shown = range(min(x.shape[-1], SERIES))
    body = [_chunk(steps, chunk[:, a], a) for chunk in unit for a in shown]
    return _panel("".join(body), "a chunk of actions over the horizon")


def _chunk(x: np.ndarray, y: np.ndarray, color: int) -> str:
    return tag("path", class_="chunk", style=f"stroke:{color_of(color)}", d=path_of(x, y))


def _panel(body: str, label: str) -> str:
    frame = tag("rect", class_="panel", x=0.5, y=0.5, width=119, height=119, rx=6)
    return svg(120, 120, frame + body, label=label)
