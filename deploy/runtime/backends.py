"""What can play an exported file: numpy an `.npz`; onnxruntime or OpenVINO, both on one thread, an `.onnx`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Optional

import numpy as np

from .chain import read_chain
from .openvino import read_openvino
from .session import read_session
from .spec import PolicyError

Read = tuple[Callable[[dict[str, np.ndarray]], np.ndarray], str, str]
"""a function of named inputs, the metadata as text, and what plays, with its version"""
BACKENDS: dict[str, Callable[[bytes, str], Read]] = {
    "numpy": read_chain,
    "onnxruntime": read_session,
    "openvino": read_openvino,
    "openvino-bfloat16": partial(read_openvino, precision="bf16"),
}


def read(content: bytes, name: str, backend: Optional[str]) -> Read:
    """Open a file's content.

    Args:
        content: of the file.
        name: for errors.
        backend: one of BACKENDS; None: numpy or onnxruntime.

    Raises:
        PolicyError: for an unknown backend or one that does not read this file, and as the backend's reader.
    """
    packed = content[:2] == b"PK"  # .npz files are zip archives
    backend = backend or ("numpy" if packed else "onnxruntime")
    if backend not in BACKENDS:
        raise PolicyError(f"there is no backend '{backend}': choose from {', '.join(BACKENDS)}")
    if packed != (backend == "numpy"):
        others, suffix = ("numpy", ".onnx") if packed else ("onnxruntime or openvino", ".npz")
        raise PolicyError(f"{name} is played by {others}: for {backend} export to a path that ends in {suffix}")
    return BACKENDS[backend](content, name)
