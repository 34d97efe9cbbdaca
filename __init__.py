"""noisepilot: diffusion and flow action policies, from demonstrations through reinforcement learning to a robot.

The names below load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Policy": "policies",
    "PolicyConfig": "policies",
    "load_policy": "policies",
    "save_policy": "policies",
    "UserError": "errors",
}
__all__ = ["Policy", "PolicyConfig", "UserError", "__version__", "load_policy", "save_policy"]

if TYPE_CHECKING:
    from .errors import UserError
    from .policies import Policy, PolicyConfig, load_policy, save_policy


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
