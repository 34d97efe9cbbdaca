"""What a server counts, as Prometheus reads it. Touched by the event loop's thread alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ERRORS = {
    "malformed": "a message that cannot be read",
    "oversize": "a message longer than the policy needs",
    "refused": "observations or noise that do not fit the policy, or are not finite",
    "spec": "a client that expects another policy",
    "unauthorized": "a missing or wrong token",
    "full": "one client too many",
    "idle": "no whole message in time",
    "slow": "an answer that was not taken in time",
    "dropped": "a client that left before its answer",
    "inference": "the policy itself failed",
    "internal": "a fault of the server",
}
"""kind -> what it counts"""


class Histogram:
    """Counts of values up to each bound, their sum and their number."""

    def __init__(self, bounds: Sequence[int | float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: int | float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterable[str]:
        """In Prometheus' text format: buckets are cumulative."""
        so_far = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{le="{bound}"}} {so_far}'
        yield f"{name}_sum {self.total:.9g}"
        yield f"{name}_count {so_far}"


class Metrics:
    """Of one server, since it started."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors = Counter(dict.fromkeys(ERRORS, 0))
        self.clients = 0
        self.latency = Histogram(SECONDS)
        self.inference = Histogram(SECONDS)
        self.rows = Histogram(ROWS)

    def text(self) -> str:
        """The body of `/metrics`."""
        lines = [
            *_head("requests_total", "counter", "Messages received."),
            f"noisepilot_requests_total {self.requests}",
            *_head("errors_total", "counter", "What went wrong, by kind."),
            *(f'noisepilot_errors_total{{kind="{kind}"}} {count}' for kind, count in self.errors.items()),
            *_head("clients", "gauge", "Open connections."),
            f"noisepilot_clients {self.clients}",
            *_head("request_seconds", "histogram", "From a request's arrival to its answer's departure."),
            *self.latency.lines("noisepilot_request_seconds"),
            *_head("inference_seconds", "histogram", "One call of the policy."),
            *self.inference.lines("noisepilot_inference_seconds"),
            *_head("batch_rows", "histogram", "Observations in one call of the policy."),
            *self.rows.lines("noisepilot_batch_rows"),
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP noisepilot_{name} {words}", f"# TYPE noisepilot_{name} {kind}"]
