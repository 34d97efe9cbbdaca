"""Where a loop's metrics go: the file, the screen, and mirrors such as TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from .loggers import SinkName, open_sinks
from .progress import Progress
from .run_folder import RunFolder


class Reporter:
    """Context manager around a loop; call it with each line of metrics.

    Args:
        run: whose metrics.jsonl is the record.
        phase: what is going on, for the screen.
        total: value of `unit` at which the loop is finished.
        unit: `env_steps` or `grad_steps`.
        sinks: mirrors to feed as well.
        since: value of `unit` at which a resumed run continues.
    """

    def __init__(
        self, run: RunFolder, phase: str, *, total: int, unit: str, sinks: Sequence[SinkName] = (), since: int = 0
    ) -> None:
        self.run = run
        self.progress = Progress(phase, total=total, unit=unit)
        self.sinks = open_sinks(sinks, run, since=since)

    def __enter__(self) -> Reporter:
        self.progress.__enter__()
        return self

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        """Record one line."""
        self.run.log(metrics)
        self.progress.update(metrics)
        for sink in self.sinks:
            sink.log(metrics)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self.sinks:
            sink.close()
        self.progress.__exit__(kind, error, trace)
