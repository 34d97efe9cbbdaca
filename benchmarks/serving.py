"""What a server costs: `noisepilot serve` in a process of its own, clients in this one.

Rows: `serve/throughput`, `serve/round-trip/<quantile>` and `serve/overhead/<quantile>` over the bare runtime with
one client, `serve/lost` and `serve/wrong` answers, `serve/memory/<when>` of the server's process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..deploy.runtime import Policy, PolicyError, RemotePolicy
from .limits import Limits
from .race import Effort, Row
from .sampling import numpy_file
from .toys import OBS, make_policy

CLIENTS = 32
DIFFERENT = 64
"""observations that are asked in turn"""
CLOSE = 1e-4
"""largest difference from the local policy's actions: a batch's products are rounded otherwise"""


def serving(limits: Limits, effort: Effort) -> Iterator[Row]:
    """`effort.requests` requests by 32 clients, after a tenth of them that does not count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "policy.npz")
        path.write_bytes(numpy_file(make_policy(5)))
        local = Policy.load(path)
        questions = Questions(local)
        with _server(path) as (address, process):
            yield from _alone(address, local, questions, effort)
            _crowd(address, questions, max(effort.requests // 10, CLIENTS))
            before = _resident_mb(process)
            start = time.perf_counter()
            lost, wrong = _crowd(address, questions, effort.requests)
            seconds = time.perf_counter() - start
            after = _resident_mb(process)
    yield Row("serve/throughput", effort.requests / seconds, "requests/s")
    yield Row("serve/lost", float(lost), "answers")
    yield Row("serve/wrong", float(wrong), "answers")
    yield Row("serve/memory/before", before, "MB")
    yield Row("serve/memory/after", after, "MB")


class Questions:
    """Observations, noises and the local policy's answers to them."""

    def __init__(self, local: Policy) -> None:
        rng = np.random.default_rng(0)
        self.states = rng.normal(size=(DIFFERENT, 1, OBS)).astype(np.float32)
        self.noises = rng.normal(size=(DIFFERENT, *local.spec.noise_shape)).astype(np.float32)
        self.answers = [self.ask(local, i) for i in range(DIFFERENT)]

    def ask(self, policy: Policy, i: int) -> np.ndarray:
        """The answer to question i, counted on from the first after the last."""
        return policy.act({"state": self.states[i % DIFFERENT]}, self.noises[i % DIFFERENT])

    def is_right(self, i: int, answer: np.ndarray) -> bool:
        """Whether it is the local policy's."""
        return bool(np.abs(answer - self.answers[i % DIFFERENT]).max() < CLOSE)


def _alone(address: str, local: Policy, questions: Questions, effort: Effort) -> Iterator[Row]:
    # One client, in turns with the bare runtime.
    bare, remote = [], []
    with RemotePolicy(address) as served:
        for i in range(max(effort.requests // 20, 20)):
            for policy, seconds in ((local, bare), (served, remote)):
                start = time.perf_counter()
                questions.ask(policy, i)
                seconds.append(time.perf_counter() - start)
    for quantile in (50, 99):
        alone, whole = (1e3 * float(np.percentile(seconds, quantile)) for seconds in (bare, remote))
        yield Row(f"serve/round-trip/p{quantile}", whole, "ms")
        yield Row(f"serve/overhead/p{quantile}", whole - alone, "ms")


def _crowd(address: str, questions: Questions, requests: int) -> tuple[int, int]:
    shares = [requests // CLIENTS + (i < requests % CLIENTS) for i in range(CLIENTS)]

    def client(number: int) -> tuple[int, int]:
        lost = wrong = 0
        with RemotePolicy(address, timeout_s=60.0) as served:
            for i in range(number, number + shares[number]):
                try:
                    wrong += not questions.is_right(i, questions.ask(served, i))
                except PolicyError:
                    lost += 1
        return lost, wrong

    with ThreadPoolExecutor(CLIENTS) as pool:
        counts = list(pool.map(client, range(CLIENTS)))
    return sum(lost for lost, _ in counts), sum(wrong for _, wrong in counts)


def _resident_mb(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:  # only Linux has it
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def _server(path: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "noisepilot", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield line.partition(" at ")[2].partition(" ")[0], process.pid
        finally:
            process.terminate()
