"""A policy server: an exported file behind a websocket, in openpi's protocol. No torch."""

from __future__ import annotations

from .background import serving
from .server import Server, Settings

__all__ = ["Server", "Settings", "serving"]
