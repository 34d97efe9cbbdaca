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
from ..unet import ConditionalUNet, UNet
from .imported import load_exactly

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


def unet_weights(weights: Mapping[str, Tensor], source: Source) -> dict[str, Tensor]:
    """Official weights under our names, without those that nothing computes with."""
    return {rename_unet(name, source): value for name, value in weights.items() if not name.startswith(_UNUSED)}


def unet_of(named: Mapping[str, Tensor], groups: int, last_groups: int = 8) -> UNet:
    """The U-Net whose weights these are, under our names, but for a network over the observation.

    How many channels are normalised together shows in no shape.

    Raises:
        UserError: for weights of something else.
    """
    try:
        levels = [named[f"down.{i}.first.first.0.weight"] for i in range(_count(named, "down"))]
        deep = "down.0.first.film.0.weight" in named  # DPPO's larger encoder
        film, time = (named[f"{name}.weight"] for name in (f"down.0.first.film.{1 - deep}", "time_embedding.3"))
        return UNet(
            tuple(level.shape[0] for level in levels),
            levels[0].shape[2],
            groups,
            last_groups,
            time_dim=time.shape[0],
            film_scale=film.shape[0] == 2 * levels[0].shape[0],
            film_layers=3 if deep else 1,
            local="local.first.0.weight" in named,
        )
    except (IndexError, KeyError):
        raise UserError(f"holds no U-Net, but {', '.join(sorted(named)[:3]) or 'nothing'}: give another file") from None


def _count(named: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in named if name.startswith(f"{part}.")})


def load_official_unet(network: ConditionalUNet, weights: Mapping[str, Tensor], source: Source) -> None:
    """Fill a network with official weights, under their official names.

    Raises:
        UserError: naming the first parameter that is missing, not known or of another shape.
    """
    load_exactly(network, unet_weights(weights, source))
