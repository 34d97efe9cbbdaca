"""Networks that turn pictures into features, and augmentations."""

from .augment import Jitter
from .encoder import Draws, Encoder
from .rgb import ResNet
from .vit import ViT

ENCODERS: dict[str, ResNet | ViT] = {"resnet": ResNet(), "vit": ViT()}
"""what pictures can be encoded by, by name"""

__all__ = ["ENCODERS", "Draws", "Encoder", "Jitter", "ResNet", "ViT"]
