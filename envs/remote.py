"""The Core of foreign environments: slots in worker processes, one message per worker and chunk.

N slots, M running, n actions per chunk, A action dimensions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from ..errors import UserError
from ..spec import ArraySpec, EnvSpec
from .core import State, Step
from .episodes import Episodes, Outcome, check_seeds
from .threads import cores
from .wire import Message, receive, send


class Process:
    """One worker and the pipes to it."""

    def __init__(self, env: str) -> None:
        self.env = env
        # The same modules as here, and the working directory only if it is a place of modules here too (-P).
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.log: IO[bytes] = tempfile.TemporaryFile()
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "noisepilot.envs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt from the keyboard is for the parent, whose end ends the workers
        )

    def send(self, message: Message) -> None:
        """Ask something."""
        assert self.popen.stdin is not None
        try:
            send(self.popen.stdin, message)
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> Message:
        """The answer; its fault is raised."""
        assert self.popen.stdout is not None
        reply = receive(self.popen.stdout)
        if reply is None:
            raise self._ended()
        if "error" in reply.head:
            raise UserError(f"{self.env}: {reply.head['error']}")
        return reply

    def close(self) -> None:
        """End the worker: by the end of its input, or by force if it does not heed that."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # unsent bytes to a worker that is gone already
                continue
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.log.close()

    def _ended(self) -> UserError:
        code = self.popen.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")
        return UserError(f"{self.env}: a worker process ended with code {code}: {last}")
