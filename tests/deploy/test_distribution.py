"""`noisepilot-runtime`: a wheel built from the folder repeats a file's certificate without the rest of the package.

By other Pythons in fresh environments: tests/suites/test_pythons.py.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import noisepilot.deploy.runtime as runtime
from noisepilot.deploy.export import export

from .toys import make_policy

FOLDER = Path(runtime.__file__).parent
ROOT = FOLDER.parents[1]

ALONE = """
import sys
for name in ("torch", "noisepilot", "pydantic", "onnx"):
    sys.modules[name] = None  # whoever imports it fails
from noisepilot_runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [export(make_policy("ddim5"), folder / f"policy.{suffix}", provenance={}) for suffix in ("npz", "onnx")]


def build_wheel(folder):
    """Of a copy, so that the checkout stays clean."""
    pytest.importorskip("setuptools", minversion="77", reason="pip install 'setuptools>=77'")
    shutil.copytree(FOLDER, folder / "runtime", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, folder / "runtime"]
    run(sys.executable, "-m", "pip", *words)
    return next(folder.glob("noisepilot_runtime-*.whl"))


def run(*words, **options):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_alone(wheel, files, tmp_path):
    """By the suite's own Python and its numpy and onnxruntime; nothing else of the suite is reachable."""
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    for file in files:
        said = run(sys.executable, "-c", ALONE, "check", file, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
        assert "the certificate holds" in said
    script = (tmp_path / "site" / "bin" / "noisepilot-runtime").read_text()
    assert "from noisepilot_runtime.__main__ import main" in script


def test_one_version():
    own = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert own["version"] == whole["version"]
    assert own["optional-dependencies"]["serve"] == whole["optional-dependencies"]["serve"]
