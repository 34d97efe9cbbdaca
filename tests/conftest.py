"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real demonstrations and parity fixtures, which stays outside the project."""
    root = Path(__file__).resolve().parent.parent
    for folder in (os.environ.get("NOISEPILOT_DATA"), root.parent / "shared" / "data"):
        if folder and Path(folder, "parity").is_dir():
            return Path(folder)
    pytest.skip("real data is absent: set NOISEPILOT_DATA to its folder")
