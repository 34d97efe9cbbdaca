"""Networks that turn pictures into features, and augmentations."""

from .augment import Jitter
from .encoder import Draws, Encoder
from .rgb import ResNet
from .vit import ViT

__all__ = ["Draws", "Encoder", "Jitter", "ResNet", "ViT"]
