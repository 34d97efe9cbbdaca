"""The package as a whole: what importing it costs, and what lives beside it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_import_is_light():
    heavy = ("torch", "numpy", "mujoco", "gymnasium", "zarr")
    code = f"import sys, noisepilot; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_hugging_face_datasets_stays_importable_from_the_root(tmp_path):
    """Our `datasets` folder has no __init__.py: a regular package of that name elsewhere wins."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("whose = 'theirs'\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.whose)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "theirs\n"


def test_public_names_exist():
    import noisepilot

    assert all(getattr(noisepilot, name) is not None for name in noisepilot.__all__)
