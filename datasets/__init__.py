"""Demonstrations: one layout on disk, one reader per foreign format, windows for training, checks.

Imported lazily: `noisepilot.datasets.load` pulls in numpy, `Chunks` torch, and only a zarr folder zarr.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import Finding as Finding
    from .checks import check as check
    from .chunks import Batch as Batch
    from .chunks import Chunks as Chunks
    from .episodes import Episodes as Episodes
    from .episodes import Stats as Stats
    from .readers import convert as convert
    from .readers import load as load
    from .writer import EpisodeWriter as EpisodeWriter

_HOMES = {
    "Batch": "chunks",
    "Chunks": "chunks",
    "EpisodeWriter": "writer",
    "Episodes": "episodes",
    "Finding": "checks",
    "Stats": "episodes",
    "check": "checks",
    "convert": "readers",
    "load": "readers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def _step_aside() -> None:
    """Let Hugging Face's `datasets` be imported from the repository root, where this folder hides it."""
    from importlib.machinery import PathFinder
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != root]
    spec = PathFinder.find_spec("datasets", elsewhere)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
    sys.modules["datasets"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "datasets":
    _step_aside()
