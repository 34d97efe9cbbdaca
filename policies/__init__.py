"""What turns (observation, noise) into an action chunk."""

from .critic import Critic, CriticMLP
from .network import MLP
from .normalizer import Normalizer
from .path import CosinePath, LinearPath
from .policy import Context, Policy, PolicyConfig
from .sampler import Chain, Sampler, Stochastic, Transitions
from .storage import default_device, load_policy, save_policy

__all__ = [
    "MLP",
    "Chain",
    "Context",
    "CosinePath",
    "Critic",
    "CriticMLP",
    "LinearPath",
    "Normalizer",
    "Policy",
    "PolicyConfig",
    "Sampler",
    "Stochastic",
    "Transitions",
    "default_device",
    "load_policy",
    "save_policy",
]
