"""The networks that a policy can be made of, by name."""

from __future__ import annotations

from .network import MLP
from .transformer import Transformer
from .unet import UNet

Network = MLP | Transformer | UNet
NETWORKS: dict[str, Network] = {"mlp": MLP(), "transformer": Transformer(), "unet": UNet()}
