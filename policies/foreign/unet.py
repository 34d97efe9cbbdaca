"""Weights of the three published conditional 1-D U-Nets under the names of ours.

`diffusion_policy`: real-stanford/diffusion_policy's `ConditionalUnet1D`; `dppo`: irom-lab/dppo's `Unet1D`;
`lerobot`: huggingface/lerobot's `DiffusionConditionalUnet1d`. Only names differ, but for one block of the first that
is computed there and never used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ...errors import UserError
from ..unet import ConditionalUNet

Source = Literal["diffusion_policy", "dppo", "lerobot"]

_LEVELS = (
    (r"^mid_modules\.", "middle."),
    (r"^(down|up)_modules\.(\d+)\.0\.", r"\1.\2.first."),
    (r"^(down|up)_modules\.(\d+)\.1\.", r"\1.\2.second."),
    (r"^(down|up)_modules\.(\d+)\.2\.(conv\.)?", r"\1.\2.resample."),
    (r"^final_conv\.0\.block\.", "last."),
    (r"^final_conv\.1\.", "out."),
    (r"\.cond_encoder\.", ".film."),
    (r"\.residual_conv\.", ".skip."),
)
_PAIR = ((r"\.blocks\.0\.block\.", ".first."), (r"\.blocks\.1\.block\.", ".second."))
_NAMES: dict[Source, tuple[tuple[str, str], ...]] = {
    "diffusion_policy": (
        *_LEVELS,
        *_PAIR,
        (r"^diffusion_step_encoder\.", "time_embedding."),
        (r"^local_cond_encoder\.0\.", "local."),
    ),
    "dppo": (
        *_LEVELS,
        *_PAIR,
        (r"^time_mlp\.", "time_embedding."),
        (r"^cond_mlp\.layers\.", "condition."),
        (r"(^last|\.first|\.second)\.2\.", r"\1.1."),  # a rearrangement stands before the norm
    ),
    "lerobot": (
        *_LEVELS,
        (r"^diffusion_step_encoder\.", "time_embedding."),
        (r"\.conv1\.block\.", ".first."),
        (r"\.conv2\.block\.", ".second."),
    ),
}
_UNUSED = "local_cond_encoder.1."


def rename_unet(name: str, source: Source) -> str:
    """Our name of an official parameter."""
    for pattern, ours in _NAMES[source]:
        name = re.sub(pattern, ours, name)
    return name


def load_official_unet(network: ConditionalUNet, weights: Mapping[str, Tensor], source: Source) -> None:
    """Fill a network with official weights, under their official names.

    Raises:
        UserError: naming the first parameter that is missing, not known or of another shape.
    """
    named = {rename_unet(name, source): value for name, value in weights.items() if not name.startswith(_UNUSED)}
    expected = network.state_dict()
    for name in (*expected, *named):
        found, wanted = (tuple(d[name].shape) if name in d else "nothing" for d in (named, expected))
        if found != wanted:
            raise UserError(
                f"the weights do not fit the network: '{name}' is {found} in them, {wanted} in the network; "
                "give the settings they were trained with"
            )
    network.load_state_dict(named)
