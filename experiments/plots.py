"""Plots as inline SVG: lines with bands, intervals, shares, heat strips. No library.

Colours are CSS variables and classes of the page (`--s0`... for series), so that it switches between light
and dark without redrawing. Hovering shows a native tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

SERIES = 12
"""colours that the page defines"""
Show = Callable[[float], str]
Pixels = int | float


@dataclass(frozen=True)
class Line:
    """One curve; `low` and `high` draw a band around it. Not finite: a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    color: int = 0


@dataclass(frozen=True)
class Frame:
    """The rectangle of a plot and what its edges mean."""

    width: Pixels
    height: Pixels
    x0: float
    x1: float
    y0: float
    y1: float
    left: Pixels = 46
    right: Pixels = 14
    top: Pixels = 10
    bottom: Pixels = 34

    def px(self, x: float) -> float:
        """Horizontal position of a value."""
        return self.left + (x - self.x0) / (self.x1 - self.x0) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        """Vertical position of a value."""
        return self.height - self.bottom - (y - self.y0) / (self.y1 - self.y0) * (self.height - self.top - self.bottom)


def line_plot(
    lines: Sequence[Line],
    *,
    xlabel: str,
    show_x: Show | None = None,
    show_y: Show | None = None,
    width: Pixels = 440,
    height: Pixels = 230,
) -> str:
    """Curves over a common x axis; the y axis holds every curve and band."""
    xs = _finite([line.x for line in lines])
    ys = _finite([v for line in lines for v in (line.y, line.low, line.high) if v is not None])
    show_x, show_y = show_x or number, show_y or number
    y_ticks = ticks(*_span(ys, pad=0.0), 5 if height > 200 else 4)
    frame = Frame(width, height, *_span(xs, pad=0.0), *_span(np.r_[ys, y_ticks[0], y_ticks[-1]], pad=0.0))
    body = [_axes(frame, y_ticks, xlabel, show_x, show_y)]
    body += [_band(frame, line) for line in lines]
    body += [_curve(frame, line, show_x, show_y) for line in lines]
    return svg(width, height, "".join(body), label=", ".join(line.name for line in lines) + " over " + xlabel)


def interval_plot(low: float, mean: float, high: float, *, limits: tuple[float, float], color: int = 0) -> str:
    """A dot with its interval on a scale that table rows share."""
    frame = Frame(150, 22, *_span(np.array(limits), pad=0.04), 0.0, 1.0, left=2, right=2, top=0, bottom=0)
    stroke, fill = f"stroke:{color_of(color)}", f"fill:{color_of(color)}"
    body = (
        tag("line", class_="rail", x1=2, x2=148, y1=11, y2=11)
        + tag("line", class_="whisker", style=stroke, x1=frame.px(low), x2=frame.px(high), y1=11, y2=11)
        + tag("circle", style=fill, cx=frame.px(mean), cy=11, r=4.5)
    )
    return svg(150, 22, body, label=f"{number(mean)}, between {number(low)} and {number(high)}", fixed=True)


def shares(parts: Mapping[str, float], *, show: Show, width: Pixels = 900) -> str:
    """One bar divided among `parts`; a legend names them."""
    total = sum(parts.values()) or 1.0
    x, bars, names = 0.0, [], {}
    for i, (name, value) in enumerate(parts.items()):
        w, part = width * value / total, f"{100 * value / total:.0f} %"
        hint = tooltip(f"{name}: {show(value)}, {part}")
        style = f"fill:{color_of(i)}"
        bars.append(tag("rect", hint, style=style, x=x, y=0, width=max(w - 2, 0.5), height=26, rx=3))
        bars.append(tag("text", part, class_="on", x=x + 8, y=17.5) if w > 60 else "")
        names[f"{name} ({show(value)})"] = i
        x += w
    return svg(width, 26, "".join(bars), label="shares of time") + legend(names)


def heat_strip(values: np.ndarray, names: Sequence[str], *, width: Pixels = 900) -> str:
    """Rows of coloured cells, values (R, C), each row on its own scale from its lowest to its highest."""
    values = np.asarray(values, dtype=float)
    left, row = 90.0, 16.0
    cell = (width - left) / max(values.shape[1], 1)
    body = []
    for i, (name, line) in enumerate(zip(names, values, strict=True)):
        low, high = _span(line[np.isfinite(line)], pad=0.0)
        place = {"class_": "heat", "y": i * row + 1, "height": row - 2}
        body.append(tag("text", escape(name), x=left - 8, y=i * row + 12, text_anchor="end"))
        body += [
            tag("rect", x=f"{left + j * cell:.2f}", width=f"{cell:.2f}", opacity=f"{t:.2f}", **place)
            for j, t in enumerate((line - low) / (high - low))
            if math.isfinite(t)
        ]
    return svg(width, row * len(values), "".join(body), label="heat strip of " + ", ".join(names))


def legend(names: Mapping[str, int]) -> str:
    """Names with the swatch of their colour."""
    items = "".join(
        f'<span><i style="background:{color_of(color)}"></i>{escape(name)}</span>' for name, color in names.items()
    )
    return f'<div class="legend">{items}</div>'


def tag(kind: str, inner: str = "", **attributes: Any) -> str:
    """An SVG element; `_` in a name stands for `-`, and floats get one decimal."""
    parts = [kind]
    for name, value in attributes.items():
        text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        parts.append(f'{name.strip("_").replace("_", "-")}="{escape(text)}"')
    return f"<{' '.join(parts)}>{inner}</{kind}>" if inner else f"<{' '.join(parts)}/>"


def tooltip(text: str) -> str:
    """What hovering over an element shows."""
    return f"<title>{escape(text)}</title>"


def svg(width: Pixels, height: Pixels, body: str, *, label: str, fixed: bool = False) -> str:
    """Wrap a drawing; it scales with the page unless `fixed`."""
    size = f' width="{width:g}" height="{height:g}"' if fixed else ""
    return f'<svg viewBox="0 0 {width:g} {height:g}"{size} role="img" aria-label="{escape(label)}">{body}</svg>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that enclose [low, high]."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(x: float) -> str:
    """A short number: 1.2M, 350k, 0.012, 3e-06."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(x) >= size:
            return f"{x / (1e3 if letter == 'k' else size):.3g}{letter}"
    if abs(x) >= 1000:
        return f"{x:.0f}"
    return f"{x:.3g}" if x else "0"


def percent(x: float) -> str:
    """A share as a percentage."""
    return f"{100 * x:.3g} %"


def color_of(index: int) -> str:
    """The colour of series `index`."""
    return f"var(--s{index % SERIES})"


def path_of(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> str:
    """SVG path data through pixel positions; not finite positions break it."""
    parts, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        finite = math.isfinite(a) and math.isfinite(b)
        if finite:
            parts.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L" if finite else "M"
    return "".join(parts)


def _axes(frame: Frame, y_ticks: Sequence[float], xlabel: str, show_x: Show, show_y: Show) -> str:
    left, right, base = frame.left, frame.width - frame.right, frame.height - frame.bottom
    parts = []
    for y in y_ticks:
        at = frame.py(y)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        parts.append(tag("text", show_y(y), x=left - 6, y=at + 3.5, text_anchor="end"))
    for x in ticks(frame.x0, frame.x1, 5):
        if frame.x0 <= x <= frame.x1:
            parts.append(tag("text", show_x(x), x=frame.px(x), y=base + 15, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=left, x2=right, y1=base, y2=base))
    parts.append(tag("text", escape(xlabel), x=right, y=base + 30, text_anchor="end"))
    return "".join(parts)


def _band(frame: Frame, line: Line) -> str:
    if line.low is None or line.high is None:
        return ""
    good = np.isfinite(line.low) & np.isfinite(line.high) & np.isfinite(line.x)
    there = [(frame.px(x), frame.py(y)) for x, y in zip(line.x[good], line.high[good], strict=True)]
    back = [(frame.px(x), frame.py(y)) for x, y in zip(line.x[good], line.low[good], strict=True)]
    outline = there + back[::-1]
    if not outline:
        return ""
    data = path_of([p[0] for p in outline], [p[1] for p in outline]) + "Z"
    return tag("path", class_="band", style=f"fill:{color_of(line.color)}", d=data)


def _curve(frame: Frame, line: Line, show_x: Show, show_y: Show) -> str:
    px, py = [frame.px(x) for x in line.x], [frame.py(y) for y in line.y]
    stroke, fill = f"stroke:{color_of(line.color)}", f"fill:{color_of(line.color)}"
    # Invisible discs carry the tooltips; a few dozen suffice for reading a curve.
    spots = [
        tag(
            "circle",
            tooltip(f"{line.name}: {show_y(line.y[i])} at {show_x(line.x[i])}"),
            class_="spot",
            style=fill,
            cx=px[i],
            cy=py[i],
            r=4,
        )
        for i in range(0, len(px), max(1, len(px) // 60))
        if math.isfinite(px[i]) and math.isfinite(py[i])
    ]
    return tag("path", class_="curve", style=stroke, d=path_of(px, py)) + "".join(spots)


def _finite(arrays: Sequence[np.ndarray]) -> np.ndarray:
    joined = np.concatenate([np.asarray(a, dtype=float).ravel() for a in arrays]) if arrays else np.zeros(0)
    return joined[np.isfinite(joined)]


def _span(values: np.ndarray, pad: float = 0.03) -> tuple[float, float]:
    """Lowest and highest value with a margin; never empty."""
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        half = 0.5 * abs(low) or 0.5
        return low - half, high + half
    return low - pad * (high - low), high + pad * (high - low)
