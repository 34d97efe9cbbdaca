"""A worker process as its parent sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from typing import IO, cast

from ..errors import UserError
from .wire import Message, receive, send


class WorkerEndedError(UserError):
    """A worker is gone; the message holds its last words."""


class Process:
    """One worker and the pipes to it."""

    def __init__(self, env: str) -> None:
        self.env = env
        # The same modules as here: -P keeps the working directory out unless it is among them.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "noisepilot.envs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent, whose end ends the workers
        )

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
