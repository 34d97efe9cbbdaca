"""A policy as one ONNX graph: observations and noise in, physical actions out, the whole chain unrolled.

A steered policy is its noise network and the base's chain, one after the other.

Of PyTorch's two exporters the one built on torch.export is used: its graphs run as fast as those of the one
built on TorchScript (0.55 ms for 20 steps of DPPO's MLP), have fewer nodes (402, not 428).
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..policies.action_prefix import ACTIONS, LENGTH
from ..policies.gaussian import GaussianActor
from ..policies.policy import Policy
from ..policies.steered import Steered
from ..policies.storage import SavedActor
from .cameras import Cameras
from .runtime.session import KEY

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
Exportable = Policy | Steered | GaussianActor
"""actors that make a chunk of an observation and its noise alone"""


def exportable(actor: SavedActor, name: object) -> Exportable:
    """The actor, if it can become one graph.

    Raises:
        UserError: for one that remembers, or whose choice small differences turn over.
    """
    if isinstance(actor, Exportable):
        return actor
    kind = type(actor).__name__
    why = {
        "Residual": "corrects every step of a chunk that it remembers",
        "BestOf": "chooses among chunks, and rounding decides between equals",
    }.get(kind, "is not known to export")
    advice = "export the policy it was made from, or play it from Python (`load_policy`)"
    if kind == "Residual":
        advice = "export the policy it was made from, and this to a path that ends in .overlay"
    raise UserError(f"{name} holds a {kind}, which {why}: {advice}")


class Constant(nn.Module):
    """A module whose answer is known."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, *_: Tensor) -> Tensor:
        """The value, whatever the input."""
        return self.get_buffer("value")


class Graph(nn.Module):
    """`policy.act` with positional inputs: each observation in the order of the spec, a prefix, then the noise."""

    def __init__(self, policy: Exportable, cameras: Cameras) -> None:
        super().__init__()
        self.policy, self.cameras = policy, cameras

    def forward(self, *inputs: Tensor) -> Tensor:
        """Observations (B, T, ...) and noise (B, N, H, A) to actions (B, H, A)."""
        *values, noise = inputs
        seen = dict(zip([*self.policy.spec.obs, *prefix_inputs(self.policy)], values, strict=True))
        context = self.policy.encode(self.cameras(seen))
        if isinstance(self.policy, Policy):  # its frozen steps may see by an encoder of their own
            return self.policy.forward(context.features, noise, context.frozen)
        return self.policy.forward(context.features, noise)


def prefix_inputs(policy: Exportable) -> dict[str, Tensor]:
    """Two rows of what such a policy takes beside observations and noise; empty if it knows no prefix."""
    most = policy.spec.max_prefix
    if not most:
        return {}
    return {ACTIONS: torch.zeros(2, most, policy.spec.action.dim), LENGTH: torch.zeros(2, dtype=torch.int64)}


def build_graph(policy: Exportable, cameras: Cameras) -> ModelProto:
    """The ONNX model of a float32 policy on the CPU, weights inside, without metadata.

    Raises:
        UserError: if the packages of the `export` extra are missing.
    """
    require_onnx()
    spec = policy.spec
    prefix = prefix_inputs(policy)
    names = [*(f"observation.{name}" for name in spec.obs), *prefix, "noise"]
    # Two rows: an axis of length one would be taken for a constant.
    obs = [
        torch.zeros(2, spec.n_obs_steps, *array.shape, dtype=torch.uint8 if name in cameras.pictures else torch.float32)
        for name, array in cameras.obs.items()
    ]
    inputs = (*obs, *prefix.values(), torch.zeros(2, *policy.noise_shape))
    with torch.no_grad(), _quiet():
        graph = Graph(_with_known_times(policy), cameras).eval()
        graph(*inputs)  # what is kept from a first call must not come from the tracer
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            input_names=names,
            output_names=["action"],
            dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC} for _ in names),),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return _cleaned(program.model_proto)


def add_metadata(model: ModelProto, text: str) -> None:
    """Put the metadata into the model, where the runtime looks for it."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, text


def require_onnx() -> None:
    """Refuse to start without the packages that exporting needs."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install 'noisepilot[export]'") from None


def _with_known_times(policy: Exportable) -> Exportable:
    # The sampler's times are numbers, so their embeddings are too.
    policy = copy.deepcopy(policy)
    chain = policy.base if isinstance(policy, Steered) else policy
    if isinstance(chain, Policy):
        for network in [chain.network, chain.prefix]:
            if network is not None:
                network.time_embedding = Constant(chain.embed_times(network))
    return policy


def _cleaned(model: ModelProto) -> ModelProto:
    # The exporter leaves notes on every node, among them source paths of the machine it ran on.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns of its own use of a deprecated class, and logs that torchvision is not installed.
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        log.setLevel(level)
