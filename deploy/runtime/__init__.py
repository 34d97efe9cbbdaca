"""Run an exported policy with numpy alone (`.npz`) or with onnxruntime (`.onnx`).

This folder imports nothing else of noisepilot, so it can be copied to a robot as it is.

policy = Policy.load("policy.onnx")
chunk = policy.act({"state": state[None]})  # (T, D) -> (H, A), physical units
"""

from __future__ import annotations

from .gate import Gate, Gated
from .limits import Limits, Seen, Workspace
from .loop import run_loop
from .policy import Policy
from .spec import PolicyError, Spec

__all__ = ["Gate", "Gated", "Limits", "Policy", "PolicyError", "Seen", "Spec", "Workspace", "run_loop"]
