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
    # The caller's thread does everything: there is no pool that could spin, and no other core is touched.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings only tell which nodes could not be folded
    # Weights stored in int8 are unpacked once, here, and not at every decision.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no narrower class
        raise unreadable(name, error) from None
    properties = session.get_modelmeta().custom_metadata_map
    if KEY not in properties:
        raise foreign(name)
    backend = f"onnxruntime {onnxruntime.__version__}"
    return lambda feeds: np.asarray(session.run(["action"], feeds)[0]), properties[KEY], backend


def unreadable(name: str, error: Exception) -> PolicyError:
    """For content that is no ONNX file."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return PolicyError(f"{name} is not a readable ONNX file ({reason}): export or copy it again")


def foreign(name: str) -> PolicyError:
    """For an ONNX file of someone else."""
    return PolicyError(f"{name} was not written by `noisepilot export`: it has no '{KEY}' metadata")
