"""Run an exported policy with numpy alone (`.npz`), with onnxruntime (`.onnx`) or on a server (`ws://`).

This folder imports nothing else of noisepilot, so it can be copied to a robot as it is.

policy = Policy.load("policy.onnx")
chunk = policy.act({"state": state[None]})  # (T, D) -> (H, A), physical units
same = RemotePolicy("ws://robot:8000")  # `noisepilot serve policy.onnx`; needs websockets and msgpack
"""

from __future__ import annotations

from .gate import Gate, Gated
from .limits import Limits, Seen, Workspace
from .loop import run_loop
from .overlay import Overlay
from .planner import Delays
from .player import Chunking
from .policy import Policy
from .remote import RemotePolicy, open_policy
from .spec import PolicyError, Spec

__all__ = [
    "Chunking",
    "Delays",
    "Gate",
    "Gated",
    "Limits",
    "Overlay",
    "Policy",
    "PolicyError",
    "RemotePolicy",
    "Seen",
    "Spec",
    "Workspace",
    "open_policy",
    "run_loop",
]
