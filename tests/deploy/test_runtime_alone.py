"""The runtime is a folder one can copy: no torch, nothing else of noisepilot, syntax of Python 3.9."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import noisepilot.deploy.runtime as runtime
from noisepilot.deploy.export import export

from .toys import make_policy

FOLDER = Path(runtime.__file__).parent
SCRIPT = """
import sys
import numpy as np
from player import Policy
policy = Policy.load(sys.argv[1])
obs = {name: np.zeros(entry["shape"]) for name, entry in policy.spec.observations.items()}
assert policy.act(obs).shape == (4, 2)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "noisepilot", "onnx", "safetensors", "msgpack", "websockets"}, loaded
assert ("onnxruntime" in loaded) == sys.argv[1].endswith(".onnx")
"""


@pytest.mark.parametrize("suffix", ["onnx", "npz"])
def test_a_copy_runs_alone(tmp_path, suffix):
    policy = export(make_policy("flow1"), tmp_path / f"policy.{suffix}", provenance={})
    shutil.copytree(FOLDER, tmp_path / "player", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(policy)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_old_syntax_and_own_imports(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    allowed = sys.stdlib_module_names | {"numpy", "onnxruntime", "openvino", "msgpack", "websockets"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or (node.level == 0 and (node.module or "").partition(".")[0] in allowed)
        if isinstance(node, ast.Import):
            assert all(alias.name.partition(".")[0] in allowed for alias in node.names)
        if isinstance(node, ast.keyword):
            assert node.arg not in ("strict", "slots", "kw_only")  # of zip and dataclass, newer than 3.9
