"""A policy as compiled code of this machine, `.pt2`, by torch's AOTInductor.

Such a file is a zip archive whose libraries run with all rights of who plays it. So it is played only where the caller
says that its author is trusted; the runtime, the server and `eval` refuse it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..policies.action_prefix import ACTIONS, LENGTH
from .cameras import Cameras
from .graph import Exportable, traced
from .runtime.policy import Policy

SUFFIX = ".pt2"
ENTRY = "extra/noisepilot.json"
"""of the archive: the metadata"""


def compile_policy(policy: Exportable, cameras: Cameras) -> bytes:
    """An archive without metadata, for one observation at a time; minutes for many steps.

    Raises:
        UserError: if there is no C++ compiler, or it refuses.
    """
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        raise UserError(f"{SUFFIX} files are compiled, and there is no '{compiler}': install g++, or name yours in CXX")
    graph, inputs = traced(policy, cameras, rows=1)
    with TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler uses what torch itself calls deprecated
        path = Path(folder, "policy" + SUFFIX)
        try:
            program = torch.export.export(graph, inputs)
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        except Exception as error:  # torch's compilers share no narrower class
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"the policy cannot be compiled ({reason}): export to a path that ends in .onnx") from None
        return path.read_bytes()


def with_metadata(archive: bytes, text: str) -> bytes:
    """The archive with its metadata inside."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as file:
        root = file.namelist()[0].partition("/")[0]
        file.writestr(f"{root}/{ENTRY}", text)
    return buffer.getvalue()


def read_metadata(content: bytes, name: str) -> dict[str, Any]:
    """What a file says of itself; nothing in it is run.

    Raises:
        UserError: if it is no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            entry = next(entry for entry in file.namelist() if entry.endswith("/" + ENTRY))
            return json.loads(file.read(entry))
    except (zipfile.BadZipFile, StopIteration, ValueError):
        raise UserError(f"{name} was not written by `noisepilot export`, or is damaged: copy it again") from None


def load(path: str | Path, *, trust: bool) -> Policy:
    """Open a `.pt2` file, which runs code of its author.

    Args:
        path: of the file.
        trust: whether the author is trusted.

    Raises:
        UserError: without trust, or if the file cannot be read.
    """
    if not trust:
        raise UserError(f"{path} runs code of whoever wrote it, with your rights: say --trust if you trust them")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return from_bytes(content, str(path))


def from_bytes(content: bytes, name: str) -> Policy:
    """Like `load`, with trust, from the content of a file that errors call `name`."""
    metadata = read_metadata(content, name)
    with TemporaryDirectory() as folder:
        path = Path(folder, "policy" + SUFFIX)
        path.write_bytes(content)
        try:
            model = torch._inductor.aoti_load_package(str(path))
        except RuntimeError as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise UserError(f"{name} cannot be played here ({reason}): export it on this machine") from None
    prefix = (ACTIONS, LENGTH) if metadata["max_prefix"] else ()
    names = [*(f"observation.{key}" for key in metadata["observations"]), *prefix, "noise"]

    @torch.no_grad()
    def run(feeds: dict[str, np.ndarray]) -> np.ndarray:
        arrays = [torch.from_numpy(np.require(feeds[key], requirements=("C", "W"))) for key in names]
        rows = [model(*(array[i : i + 1] for array in arrays)) for i in range(len(arrays[-1]))]
        return torch.cat(rows).numpy()

    digest = hashlib.sha256(content).hexdigest()
    return Policy(run, metadata, name, digest, f"AOTInductor of torch {torch.__version__}")
