"""An ONNX file as a function, by OpenVINO on one thread of the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .session import KEY, foreign, unreadable
from .spec import PolicyError

Arrays = dict[str, np.ndarray]


def read_openvino(content: bytes, name: str, precision: str = "f32") -> tuple[Callable[[Arrays], np.ndarray], str, str]:
    """The graph as a function of its named inputs, its metadata as text, and what plays it.

    Args:
        content: of the file.
        name: for errors.
        precision: of products: `f32`, or `bf16` where the processor multiplies it.

    Raises:
        PolicyError: if openvino is missing, the processor has no bfloat16, or the content is no ONNX file of ours.
    """
    try:
        import openvino
    except ImportError:
        raise PolicyError("openvino is missing: pip install openvino") from None
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PolicyError("this processor has no bfloat16, which would make it slower: use the backend openvino")
    try:
        model = core.read_model(content)
    except Exception as error:  # OpenVINO's errors are RuntimeErrors of many lines
        raise unreadable(name, error) from None
    try:
        text = model.get_rt_info(["framework", KEY]).astype(str)
    except RuntimeError:
        raise foreign(name) from None
    version = openvino.__version__.partition("-")[0]
    return _Requests(core, model, precision), text, f"openvino {version}" + (" bfloat16" * (precision == "bf16"))


class _Requests:
    """One compiled for a batch of one, whose known shapes make it a quarter faster; another for the rest, if asked."""

    def __init__(self, core: Any, model: Any, precision: str) -> None:
        self.compile, self.model = core.compile_model, model
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # else weights in int8 make it round observations too
            # Its compiler of fused operations ends the process on small networks (2026.4), and gains nothing.
            "SNIPPETS_MODE": "DISABLE",
        }
        self.any: Any = None
        single = model.clone()
        # Dimensions of -1 are batches.
        single.reshape({port.any_name: [1, *list(port.partial_shape)[1:]] for port in single.inputs})
        self.one = self._request(single)

    def __call__(self, feeds: Arrays) -> np.ndarray:
        """Actions (B, H, A)."""
        if len(feeds["noise"]) == 1:
            request = self.one
        else:
            request = self.any = self.any or self._request(self.model)
        return np.array(request.infer(feeds, share_inputs=True, share_outputs=True)["action"])

    def _request(self, model: Any) -> Any:
        return self.compile(model, "CPU", self.settings).create_infer_request()
