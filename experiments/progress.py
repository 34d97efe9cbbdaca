"""What a person watching a run wants on one screen; plain lines where there is no terminal.

Fed with the dictionary that goes to metrics.jsonl; `<key>_low` and `<key>_high` beside a key are its limits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

HEADLINES = (
    ("eval/success_rate", "success (eval)"),
    ("rollout/success_rate", "success"),
    ("eval/mean_reward", "return (eval)"),
    ("rollout/ep_rew_mean", "return"),
    ("train/loss", "loss"),
)
"""first of these that a run logs is the one whose curve is drawn"""
DETAILS = (
    ("train/loss", "loss"),
    ("train/approx_kl", "KL"),
    ("train/clip_fraction", "clipped"),
    ("train/explained_variance", "explained variance"),
    ("train/value_loss", "value loss"),
)
BARS = "▁▂▃▄▅▆▇█"
SECONDS_BETWEEN_LINES = 2.0
WINDOW = 20
"""updates over which speed is averaged"""


class Progress:
    """Context manager that shows a phase of a run.

    Args:
        phase: what is going on, "finetune dppo".
        total: value of `unit` at which it is finished.
        unit: the counter in the metrics that advances, `env_steps` or `grad_steps`.
        console: where to draw; None: a rich console on standard error.
    """

    def __init__(self, phase: str, *, total: int, unit: str = "env_steps", console: Console | None = None) -> None:
        self.phase, self.total, self.unit = phase, total, unit
        self.metrics: dict[str, Any] = {}
        self.curves: dict[str, list[float]] = {key: [] for key, _ in HEADLINES}
        self.marks: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self.printed = float("-inf")
        self._given = console

    def __enter__(self) -> Progress:
        from rich.console import Console
        from rich.live import Live

        self.console = self._given or Console(stderr=True)
        self.live = Live(console=self.console, refresh_per_second=4) if self.console.is_terminal else None
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
        elif self.metrics:
            self._print(force=True)

    def update(self, metrics: Mapping[str, Any]) -> None:
        """Take in the newest metrics, which must hold `unit`; older values of absent keys stay."""
        self.metrics |= metrics
        self.marks.append((time.perf_counter(), float(metrics[self.unit])))
        for key, curve in self.curves.items():
            if metrics.get(key) is not None:
                curve.append(float(metrics[key]))
        if self.live:
            self.live.update(self._screen())
        else:
            self._print()

    def line(self) -> str:
        """Everything on one line."""
        parts = [self.phase, self._count(), self._speed()]
        if headline := self._headline():
            parts.append(f"{headline[1]} {self._value(headline[0])}")
        return "  ".join(parts + self._details())

    def _screen(self) -> RenderableType:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        rows = Table.grid(padding=(0, 2))
        rows.add_row(ProgressBar(total=self.total, completed=self._done(), width=40), self._count())
        rows.add_row("", self._speed())
        if headline := self._headline():
            curve = sparkline(self.curves[headline[0]], width=40)
            rows.add_row(f"[cyan]{curve}[/]", f"{headline[1]} [bold]{self._value(headline[0])}[/]")
        rows.add_row("", "  ".join(self._details()))
        return Panel(rows, title=self.phase, title_align="left", border_style="dim", expand=False)

    def _print(self, *, force: bool = False) -> None:
        now = time.perf_counter()
        if force or now - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = now
            self.console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    def _done(self) -> float:
        return self.marks[-1][1]

    def _count(self) -> str:
        percent = 100 * self._done() / max(self.total, 1)
        return f"{self._done():,.0f} / {self.total:,} {self.unit.replace('_', ' ')} ({percent:.0f} %)"

    def _speed(self) -> str:
        (began, first), (now, last) = self.marks[0], self.marks[-1]
        if last <= first or now <= began:
            return "- /s"
        speed = (last - first) / (now - began)
        return f"{speed:,.0f} /s  {duration(max(self.total - last, 0) / speed)} left"

    def _headline(self) -> tuple[str, str] | None:
        return next(((key, name) for key, name in HEADLINES if self.curves[key]), None)

    def _value(self, key: str) -> str:
        percent = key.endswith("success_rate")
        show = (lambda x: f"{100 * x:.1f} %") if percent else (lambda x: f"{x:.4g}")
        low, high = self.metrics.get(f"{key}_low"), self.metrics.get(f"{key}_high")
        interval = "" if low is None or high is None else f" [{show(low)}, {show(high)}]"
        return show(self.curves[key][-1]) + interval

    def _details(self) -> list[str]:
        shown = self._headline()
        return [
            f"{name} {self.metrics[key]:.3g}"
            for key, name in DETAILS
            if self.metrics.get(key) is not None and (shown is None or key != shown[0])
        ]


def sparkline(values: list[float], *, width: int) -> str:
    """The curve of `values` in at most `width` characters, each the mean of its share."""
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [i * len(values) // columns for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (m - low) / (high - low)) if high > low else 0] for m in means)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
