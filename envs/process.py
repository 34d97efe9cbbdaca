"""A worker process as its parent sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

from ..errors import UserError
from .wire import Message, receive, send

PACKAGE = Path(__file__).resolve().parent.parent

START = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("noisepilot", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["noisepilot"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from noisepilot.envs.worker import main
main()
"""
"""starts a worker where this package is not installed, from the files that the parent runs, and adds no other path"""


@dataclass(frozen=True)
class Place:
    """Where a worker runs: the interpreter of a virtual environment of its own, or the parent's."""

    python: Path | None = None
    """None: the parent's interpreter, with the same modules"""
    environ: Mapping[str, str] = field(default_factory=dict)
    """variables beyond the parent's"""

    def command(self) -> list[str]:
        """What starts a worker."""
        if self.python is None:
            return [sys.executable, "-P", "-m", "noisepilot.envs.worker"]
        return [str(self.python), "-P", "-c", START, str(PACKAGE)]

    def variables(self) -> dict[str, str]:
        """The worker's environment."""
        given = {"OMP_NUM_THREADS": "1", **os.environ, **self.environ}
        if self.python is not None:
            return {name: value for name, value in given.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        # The same modules as here: -P keeps the working directory out unless it is among them.
        return {**given, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


HERE = Place()


class WorkerEndedError(UserError):
    """A worker is gone; the message holds its last words."""


class Process:
    """One worker and the pipes to it."""

    def __init__(self, env: str, place: Place = HERE) -> None:
        self.env, self.place = env, place
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self.popen = subprocess.Popen(
            place.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=place.variables(),
            start_new_session=True,  # Ctrl-C is for the parent, whose end ends the workers
        )

    def again(self) -> Process:
        """Another worker like this one."""
        return Process(self.env, self.place)

    def send(self, message: Message) -> None:
        """Ask something."""
        try:
            send(cast(BufferedIOBase, self.popen.stdin), message)
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> Message:
        """The answer; its fault is raised."""
        reply = receive(cast(BufferedIOBase, self.popen.stdout))
        if reply is None:
            raise self._ended()
        if "error" in reply.head:
            text = reply.head["error"]
            raise UserError(text if reply.head["named"] else f"{self.env}: {text}")
        return reply

    def close(self) -> None:
        """End the worker: by the end of its input, or by force if it does not heed that."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            try:
                cast(BufferedIOBase, pipe).close()
            except BrokenPipeError:  # unsent bytes to a worker that is gone already
                continue
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.log.close()

    def _ended(self) -> WorkerEndedError:
        code = self.popen.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")
        return WorkerEndedError(f"{self.env}: a worker process ended with code {code}: {last}")


def ask(
    processes: Sequence[Process], messages: Mapping[int, Message]
) -> tuple[dict[int, Message], dict[int, WorkerEndedError]]:
    """Send to all, then hear all: they work at the same time.

    Returns:
        Answers by worker, and the workers that were found dead.

    Raises:
        UserError: for a fault of an environment; every process is ended then.
    """
    replies: dict[int, Message] = {}
    dead: dict[int, WorkerEndedError] = {}
    for worker, message in messages.items():
        try:
            processes[worker].send(message)
        except WorkerEndedError as error:
            dead[worker] = error
    try:
        for worker in messages.keys() - dead.keys():
            try:
                replies[worker] = processes[worker].receive()
            except WorkerEndedError as error:
                dead[worker] = error
    except UserError:
        close_all(processes)
        raise
    return {worker: replies[worker] for worker in messages if worker in replies}, dead


def exchange(processes: Sequence[Process], messages: Mapping[int, Message]) -> list[Message]:
    """As `ask`, where a dead worker is a fault too: the first ends every process."""
    replies, dead = ask(processes, messages)
    for error in dead.values():
        close_all(processes)
        raise error
    return list(replies.values())


def close_all(processes: Sequence[Process]) -> None:
    """End every process."""
    for process in processes:
        process.close()
