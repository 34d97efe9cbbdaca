"""Suites that want other versions than the rest: each in a virtual environment of its own, where its workers run.

`noisepilot envs install` builds it in the user's cache folder; `NOISEPILOT_<SUITE>` names another folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path


def home(suite: str) -> Path:
    """The folder of a suite: `venv/`, and what else it needs."""
    if named := os.environ.get(f"NOISEPILOT_{suite.upper()}"):
        return Path(named).expanduser()
    caches = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    root = caches.get(sys.platform) or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "noisepilot" / suite


def interpreter(suite: str) -> Path:
    """Where the interpreter of a suite's virtual environment is, or would be."""
    return home(suite) / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def version(suite: str, package: str) -> str:
    """The version of a package in a suite's virtual environment; empty: none."""
    venv = interpreter(suite).parent.parent
    folders = [str(path) for path in (*venv.glob("lib/python*/site-packages"), *venv.glob("Lib/site-packages"))]
    return next((found.version for found in distributions(name=package, path=folders)), "")


def make(suite: str) -> int:
    """Make the virtual environment, if there is none; the exit code is that of Python's `venv`."""
    python = interpreter(suite)
    return 0 if python.exists() else subprocess.run(venv_command(suite)).returncode


def venv_command(suite: str) -> list[str]:
    """What makes the virtual environment."""
    return [sys.executable, "-m", "venv", str(home(suite) / "venv")]
