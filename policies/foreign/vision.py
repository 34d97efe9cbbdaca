"""Weights of DPPO's ViT, LeRobot's picture encoder and torchvision's ResNet-18 in our encoders.

Names are mapped by functions of plain dictionaries, so that whoever reads a checkpoint can use them; only the
ResNet-18, which comes as a file of its own, has a loader here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import UserError
from ..vision.resnet import ResNet18
from .checkpoint import read_arrays

_VIT = (
    (r"^(backbone\.)?vit\.", "transformer."),
    (r"^transformer\.pos_embed$", "transformer.place"),
    (r"^transformer\.patch_embed\.(conv|embed\.0)\.", "transformer.cut.0."),
    (r"^transformer\.patch_embed\.embed\.3\.", "transformer.cut.2."),
    (r"^transformer\.net\.(\d+)\.(layer_)?", r"transformer.blocks.\1."),
    (r"\.mha\.qkv_proj\.", ".attention.project."),
    (r"\.mha\.out_proj\.", ".attention.out."),
    (r"\.norm1\.", ".norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.linear1\.", ".mlp.0."),
    (r"\.linear2\.", ".mlp.3."),
    (r"^compress\.", "compress1."),
    (r"^compress(\d)\.", lambda m: f"embeddings.{int(m[1]) - 1}."),
    (r"\.input_proj\.", ".project."),
)
_RESNET = (
    (r"^(0|conv1)\.", "stem.conv."),
    (r"^(1|bn1)\.", "stem.norm."),
    (r"^(\d)\.", lambda m: f"stages.{int(m[1]) - 4}."),
    (r"^layer(\d)\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\.(conv|bn)1\.", lambda m: f".first.{_KINDS[m[1]]}."),
    (r"\.(conv|bn)2\.", lambda m: f".second.{_KINDS[m[1]]}."),
    (r"\.downsample\.0\.", ".skip.conv."),
    (r"\.downsample\.1\.", ".skip.norm."),
)
_KINDS = {"conv": "conv", "bn": "norm"}
_EPS = 1e-5
"""of torchvision's batch normalisation"""


def rename_vit(name: str) -> str:
    """Name inside a `ViTEncoder` of a parameter of DPPO's ViT or its spatial embeddings; other names stay."""
    return _renamed(name, _VIT) if re.match(r"(backbone\.)?vit\.|compress\d?\.", name) else name


def rgb_encoder_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of LeRobot's `DiffusionRgbEncoder` under names of a `ColourNetwork`; batch normalisation is folded."""
    backbone, ours = {}, {}
    for name, value in weights.items():
        if name.startswith("backbone."):
            backbone[rename_resnet(name.removeprefix("backbone."))] = value
        elif name != "pool.pos_grid":  # computed
            ours[name.replace("pool.nets.", "pool.mix.")] = value
    backbone = _fold(backbone) if has_batch_norm(backbone) else backbone
    return {f"backbone.{name}": value for name, value in backbone.items()} | ours


def has_batch_norm(weights: Mapping[str, Tensor]) -> bool:
    """Statistics of batches are among the weights."""
    return any(name.endswith(".running_var") for name in weights)


def rename_resnet(name: str) -> str:
    """Name inside a `ResNet18` of one of torchvision's, or of its layers in a sequence."""
    return _renamed(name, _RESNET)


def _renamed(name: str, patterns: tuple) -> str:
    for pattern, ours in patterns:
        name = re.sub(pattern, ours, name)
    return name


def load_resnet(backbone: ResNet18, path: str | Path) -> None:
    """Fill a ResNet-18 with weights in torchvision's layout: .safetensors, .npz, or torch's own file of tensors.

    Batch normalisation is folded into the convolutions of a backbone made for that (`norm="folded"`).

    Raises:
        UserError: if the file cannot be read, or its layers or normalisation are others.
    """
    weights = {k: v for k, v in _read(Path(path)).items() if not k.startswith("fc.")}
    batch = has_batch_norm(weights)
    folded = isinstance(backbone.stem.norm, torch.nn.Identity)
    if batch and not folded:
        raise UserError(f"{path} has batch normalisation, this network GroupNorm: set norm to 'folded'")
    if folded and not batch:
        raise UserError(f"{path} has no batch normalisation to fold into this network: set norm to 'group'")
    named = {rename_resnet(name): value for name, value in weights.items()}
    try:
        backbone.load_state_dict(_fold(named) if folded else named)
    except (KeyError, RuntimeError) as error:
        line = next(line.strip() for line in reversed(str(error).splitlines()) if line.strip())
        raise UserError(f"{path} does not fit a ResNet-18 of this width: {line}") from None


def _fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions whose weights and biases do what the normalisation behind them did."""
    folded = {}
    for name in weights:
        if not name.endswith("conv.weight"):
            continue
        layer = name.removesuffix("conv.weight")
        gain, shift, mean, var = (
            weights[f"{layer}norm.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / (var + _EPS).sqrt()
        folded[name] = (weights[name].double() * scale[:, None, None, None]).float()
        folded[f"{layer}conv.bias"] = (shift - mean * scale).float()
    return folded


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".npz":
        return {name: torch.from_numpy(value) for name, value in read_arrays(path).items()}
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Tensors alone: nothing in the file is run.
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a file of ResNet-18 weights") from None
    except SafetensorError as error:
        raise UserError(f"{path} is corrupt ({error}): copy it again") from None
    except Exception as error:  # what torch raises for a file that is none of its own has many types
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not a file of tensors ({reason}): save its state_dict") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds more than tensors by name: save its state_dict")
    return weights
