"""C source of a policy, compiled here and played from Python: for its certificate, tests and benchmarks."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..errors import UserError
from .c_source import read_metadata
from .runtime.policy import Policy
from .runtime.spec import PolicyError

FLAGS = ("-std=c99", "-O3")
REFUSALS = ("", "an observation is not finite", "the noise is not finite", "the action is not finite")


def find_compiler() -> list[str]:
    """The words that call the system's C compiler: what CC names, or `cc`.

    Raises:
        UserError: if there is none.
    """
    words = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(words[0]) is None:
        raise UserError(
            f"C source is compiled to be checked, and there is no compiler '{words[0]}': install gcc or clang, "
            "or name yours in the environment variable CC"
        )
    return words


def compiler_version(flags: Sequence[str] = FLAGS) -> str:
    """What the compiler calls itself, and the flags."""
    done = subprocess.run([*find_compiler(), "--version"], capture_output=True, text=True, check=False)
    return " ".join([*done.stdout.splitlines()[:1], *flags])


def build(source: bytes, flags: Sequence[str] = FLAGS) -> ctypes.CDLL:
    """Compile and load a file of `c_source`.

    Raises:
        UserError: if there is no compiler, or it refuses.
    """
    with TemporaryDirectory() as folder:
        path, library = Path(folder, "policy.c"), Path(folder, "policy.so")
        path.write_bytes(source)
        words = [*find_compiler(), *flags, "-shared", "-fPIC", "-o", str(library), str(path), "-lm"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
            raise UserError(f"the C compiler refuses the policy: {said}; name another compiler in CC")
        loaded = ctypes.CDLL(str(library))
    loaded.noisepilot_act.argtypes = [ctypes.c_void_p] * 3
    loaded.noisepilot_draw.argtypes = [ctypes.c_void_p] * 2
    loaded.noisepilot_metadata.restype = ctypes.c_char_p
    return loaded


class Compiled:
    """`runtime.Policy`'s function of named inputs, by compiled code."""

    def __init__(self, library: ctypes.CDLL, metadata: Mapping[str, Any]) -> None:
        self.act = library.noisepilot_act
        self.names = [f"observation.{name}" for name in metadata["observations"]]
        self.shape = tuple(metadata["action"]["shape"])

    def __call__(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (B, H, A), row by row."""
        noises = np.ascontiguousarray(feeds["noise"])
        parts = [feeds[name].reshape(len(noises), -1) for name in self.names]
        records = np.ascontiguousarray(np.concatenate(parts, 1))
        actions = np.empty((len(noises), *self.shape), np.float32)
        for i in range(len(noises)):
            if code := self.act(*(array[i].ctypes.data for array in (records, noises, actions))):
                raise PolicyError(f"the compiled policy refuses: {REFUSALS[code]}")
        return actions


def load(source: bytes, flags: Sequence[str] = FLAGS) -> Policy:
    """A file of `c_source` as a policy that is played like every other.

    Raises:
        UserError: if it cannot be compiled.
    """
    return play(build(source, flags), read_metadata(source), compiler_version(flags))


def play(library: ctypes.CDLL, metadata: dict[str, Any], backend: str = "") -> Policy:
    """The same for a library that `build` made."""
    return Policy(Compiled(library, metadata), metadata, backend=backend)
