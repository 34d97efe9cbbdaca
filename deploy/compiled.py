"""C source of a policy, compiled here and played from Python: for its certificate, tests and benchmarks."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..errors import UserError
from .c_source import read_metadata
from .runtime.policy import Policy
from .runtime.spec import PolicyError

FLAGS = ("-std=c99", "-O3")
FLOATS = ctypes.POINTER(ctypes.c_float)
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


def compiler_version() -> str:
    """What the compiler calls itself, with the flags of the certificate."""
    done = subprocess.run([*find_compiler(), "--version"], capture_output=True, text=True, check=False)
    return " ".join([*done.stdout.splitlines()[:1], *FLAGS])


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
        return ctypes.CDLL(str(library))


class Compiled:
    """`runtime.Policy`'s function of named inputs, by compiled code."""

    def __init__(self, library: ctypes.CDLL, names: Sequence[str], shape: Sequence[int]) -> None:
        self.library, self.shape = library, tuple(shape)
        self.names = [f"observation.{name}" for name in names]

    def __call__(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (B, H, A), row by row."""
        noise = feeds["noise"]
        action = np.empty((len(noise), *self.shape), np.float32)
        for i in range(len(noise)):
            record = np.concatenate([feeds[name][i].ravel() for name in self.names])
            if code := self.library.noisepilot_act(_floats(record), _floats(np.ascontiguousarray(noise[i])), _floats(action[i])):
                raise PolicyError(f"the compiled policy refuses: {REFUSALS[code]}")
        return action


def load(source: bytes, flags: Sequence[str] = FLAGS) -> Policy:
    """A file of `c_source` as a policy that is played like every other.

    Raises:
        UserError: if it cannot be compiled.
    """
    library, metadata = build(source, flags), read_metadata(source)
    return Policy(Compiled(library, list(metadata["observations"]), metadata["action"]["shape"]), metadata)


def _floats(array: np.ndarray) -> ctypes.Array:
    return array.ctypes.data_as(FLOATS)
