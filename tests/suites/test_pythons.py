"""The wheel of `noisepilot-runtime` in fresh environments of the Pythons that robots have."""

import shutil
import subprocess
from pathlib import Path

import pytest

from noisepilot.deploy.export import export

from ..deploy.test_distribution import build_wheel, run
from ..deploy.toys import make_policy

NUMPY = {"3.9": "numpy==1.26.*", "3.12": "numpy>=2"}


@pytest.mark.parametrize("version", NUMPY)
def test_a_fresh_environment(tmp_path, version):
    python = _find(version)
    if python is None:
        pytest.skip(f"needs python{version}, on the path or of pyenv")
    run(python, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    words = [programs / "pip", "install", "-q", "--disable-pip-version-check"]
    fetched = subprocess.run([*words, NUMPY[version], "onnxruntime"], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"pip finds no {NUMPY[version]} and onnxruntime for Python {version}")
    run(*words, "--no-index", build_wheel(tmp_path))
    for suffix in ("npz", "onnx"):
        file = export(make_policy("ddim5"), tmp_path / f"policy.{suffix}", provenance={})
        said = run(programs / "noisepilot-runtime", "check", file, cwd=tmp_path)
        assert "over 8 examples; the certificate holds" in said


def _find(version):
    found = [shutil.which(f"python{version}")]
    found += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for python in filter(None, found):
        # A shim of pyenv can be there and refuse.
        if subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return python
    return None
