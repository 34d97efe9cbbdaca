"""Networks that turn pictures into features, and augmentations."""

from .augment import Jitter
from .encoder import Draws, Encoder, EncoderConfig
from .rgb import ResNet
from .vit import ViT

__all__ = ["Draws", "Encoder", "EncoderConfig", "Jitter", "ResNet", "ViT"]
