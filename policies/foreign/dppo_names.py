"""Official names of irom-lab/dppo's and ReinFlow's networks, and ours.

MLPs: `DiffusionMLP`, `FlowMLP`, `ShortCutFlowMLP`, `CriticObs` and the noise network; U-Nets: `Unet1D`; with a ViT
before them: `VisionDiffusionMLP`, `VisionFlowMLP`, `ViTCritic`, `VisionUnet1D`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .unet import rename_unet
from .vision import rename_vit

_MLP = (
    (r"(Q1|mlp_mean|vel_head)\.layers\.(\d+)\.", r"trunk.\2."),
    (r"(Q1|mlp_mean|vel_head|mlp_logvar)\.moduleList\.(\d+)\.linear_1\.", lambda m: f"trunk.{2 * int(m[2])}."),
    (r"(cond_mlp|cond_emb)\.moduleList\.(\d+)\.linear_1\.", lambda m: f"condition.{2 * int(m[2])}."),
    (r"t_emb\.(\d)\.", lambda m: f"time_embedding.{1 + int(m[1])}."),
    (r"explore_noise_net\.", "noise."),
)


def rename(name: str) -> str:
    """Our name of an official parameter of an MLP."""
    for pattern, ours in _MLP:
        name = re.sub(pattern, ours, name)
    return name


def our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network, official name -> tensor, under our names; which network it is shows in them."""
    unet = any(name.startswith("down_modules.") for name in weights)
    return {_ours(name, unet): value for name, value in weights.items()}


def _ours(name: str, unet: bool) -> str:
    inside = rename_vit(name)
    if inside != name:
        return f"encoder.{inside}"
    return rename_unet(name, "dppo") if unet else rename(name)
