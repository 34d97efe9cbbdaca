"""An ONNX file as a function: onnxruntime on one thread, the fastest for small networks at batch 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .spec import PolicyError

KEY = "noisepilot"
"""name of the metadata entry"""


def read_session(content: bytes, name: str) -> tuple[Callable[[dict[str, np.ndarray]], np.ndarray], str, str]:
    """The graph as a function of its named inputs, its metadata as text, and what plays it.

    Raises:
        PolicyError: if onnxruntime is missing, or the content is no ONNX file of ours.
    """
    try:
        import onnxruntime
    except ImportError:
        raise PolicyError("onnxruntime is missing: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings only tell which nodes could not be folded
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no narrower class
        reason = str(error).splitlines()[0]
        raise PolicyError(f"{name} is not a readable ONNX file ({reason}): export or copy it again") from None
    properties = session.get_modelmeta().custom_metadata_map
    if KEY not in properties:
        raise PolicyError(f"{name} was not written by `noisepilot export`: it has no '{KEY}' metadata")
    backend = f"onnxruntime {onnxruntime.__version__}"
    return lambda feeds: np.asarray(session.run(["action"], feeds)[0]), properties[KEY], backend
