"""What turns (observation, noise) into an action chunk."""

from .critic import Critic, CriticMLP
from .network import MLP
from .normalizer import Normalizer
from .objective import Consistency, Matching, MeanFlow, Shortcut
from .path import CosinePath, LinearPath, TimeDraw, VPPath
from .policy import Context, Policy, PolicyConfig
from .sampler import Chain, Sampler, Stochastic, Transitions
from .storage import default_device, load_policy, save_policy
from .transformer import Transformer
from .unet import UNet
from .vision import ResNet, ViT

__all__ = [
    "MLP",
    "Chain",
    "Consistency",
    "Context",
    "CosinePath",
    "Critic",
    "CriticMLP",
    "LinearPath",
    "Matching",
    "MeanFlow",
    "Normalizer",
    "Policy",
    "PolicyConfig",
    "ResNet",
    "Sampler",
    "Shortcut",
    "Stochastic",
    "TimeDraw",
    "Transformer",
    "Transitions",
    "UNet",
    "VPPath",
    "ViT",
    "default_device",
    "load_policy",
    "save_policy",
]
