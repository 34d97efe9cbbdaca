"""What a control loop measures, over all its episodes. Shapes: A action dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .control import Control
from .player import Chunking
from .seams import Seams, action_range


class Record:
    """Counts while the loop runs.

    Args:
        action: what the policy's file says of it.
        budget: control steps after which the loop shall end.
        traces: as of `run_loop`.
    """

    def __init__(self, action: Mapping[str, Any], budget: int, traces: list[dict[str, Any]] | None = None) -> None:
        self.budget, self.traces = budget, traces
        self.seams = Seams(action_range(action))
        self.inference_s: list[float] = []
        self.late_s: list[float] = []
        self.episodes: list[dict[str, Any]] = []
        self.paced_s = 0.0
        self.held = self.starved = self.refused = self.consumed = 0
        self.fault, self.began = "", False

    @property
    def full(self) -> bool:
        """As many steps as were asked for."""
        return len(self.late_s) >= self.budget

    def begin(self, seed: int) -> None:
        """A new episode."""
        self.began, self._seed = True, seed
        self._return, self._length, self._success, self._lost = 0.0, 0, None, False
        self._trace: dict[str, Any] = {"commands": [], "sources": [], "late_s": []}
        self.seams.start()

    def step(self, step: Any, command: np.ndarray, source: int) -> bool:
        """What the environment made of a command; returns whether that ended the episode."""
        self.seams.push(command, source)
        self._return += float(step.reward[0, 0])
        self._length += 1
        if "success" in step.signals:
            self._success = max(self._success or 0.0, float(step.signals["success"][0, 0]))
        ended = bool(step.terminated[0, 0] or step.truncated[0, 0])
        self._lost = ended and hasattr(step, "valid") and not step.valid[0, 0]
        if self.traces is not None:
            self._trace["commands"].append(np.asarray(command, np.float64).tolist())
            self._trace["sources"].append(source)
        return ended

    def late(self, seconds: float) -> None:
        """A deadline was met (0) or missed."""
        self.late_s.append(seconds)
        if self.traces is not None:
            self._trace["late_s"].append(seconds)

    def end(self, control: Control, plans: Sequence[tuple[int, int, float]]) -> None:
        """The episode is over."""
        self.held += control.held
        self.starved += control.player.starved
        self.refused += control.player.refused
        self.fault = self.fault or control.player.fault
        self.inference_s += [seconds for _, _, seconds in plans]
        self.consumed = max([self.consumed, *(consumed for _, consumed, _ in plans)])
        entry = {"seed": self._seed, "return": self._return, "length": self._length, "success": self._success}
        if self._lost:
            entry = {"seed": self._seed, "return": None, "length": self._length - 1, "success": None}
        self.episodes.append(entry)
        if self.traces is not None:
            self.traces.append({"seed": self._seed, **self._trace, "plans": list(plans)})

    def report(self, hz: float, chunking: Chunking) -> dict[str, Any]:
        """See `run_loop`; `hz` of the commands."""
        ms = 1e3 * np.array(self.inference_s)
        p50, p95, p99 = np.percentile(ms, [50, 95, 99]).tolist() if len(ms) else (None, None, None)
        return {
            "hz": hz,
            "achieved_hz": len(self.late_s) / self.paced_s if self.paced_s > 0 else None,
            "mode": chunking.mode,
            "execute": chunking.execute,
            "steps": len(self.late_s),
            "inference_ms": {
                "p50": p50,
                "p95": p95,
                "p99": p99,
                "max": float(ms.max()) if len(ms) else None,
                "count": len(ms),
            },
            "misses": sum(late > 0 for late in self.late_s),
            "late_ms_max": 1e3 * max(self.late_s, default=0.0),
            "held": self.held,
            "starved": self.starved,
            "refused": self.refused,
            "fault": self.fault or None,
            "consumed_max": self.consumed,
            "seams": self.seams.count,
            "jerk": self.seams.jerk(),
            "episodes": self.episodes,
        }
