"""One file, several players, the same actions; the verbs choose among them."""

import json
import sys

import numpy as np
import pytest

from noisepilot.deploy.export import export
from noisepilot.deploy.runtime import Policy, PolicyError, open_policy
from noisepilot.deploy.runtime.__main__ import main
from noisepilot.errors import UserError
from noisepilot.experiments import deploy_verbs
from noisepilot.experiments.eval_verbs import evaluate
from noisepilot.spec import ArraySpec

from .toys import draw_obs, make_policy

ENV = "InvertedPendulum-v5"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A policy of the inverted pendulum in both formats."""
    policy, folder = make_policy("history", {"state": ArraySpec((4,))}, ArraySpec((1,))), tmp_path_factory.mktemp("p")
    return {s: export(policy, folder / f"policy.{s}", provenance={}) for s in ("onnx", "npz")}


def test_openvino_plays_the_same(files):
    pytest.importorskip("openvino", reason="pip install openvino")
    ours, theirs = (Policy.load(files["onnx"], backend) for backend in ("openvino", "onnxruntime"))
    assert ours.backend.startswith("openvino 20")
    assert ours.metadata == theirs.metadata
    assert ours.verify().holds
    obs = {name: value.numpy() for name, value in draw_obs(make_policy("history"), 5).items()}
    for rows in (slice(0, 1), slice(0, 5), slice(1, 4)):
        part = {"state": obs["state"][rows]}
        a, b = (p.act(part, generator=np.random.default_rng(0)) for p in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=1e-5)
    first = ours.act({"state": obs["state"][:1]}, generator=np.random.default_rng(0))
    kept = first.copy()
    ours.act({"state": obs["state"][1:2]}, generator=np.random.default_rng(1))
    np.testing.assert_array_equal(first, kept)  # no memory of OpenVINO's that the next decision overwrites


def test_openvino_through_the_verbs(files, capsys):
    pytest.importorskip("openvino", reason="pip install openvino")
    assert main(["check", str(files["onnx"]), "--backend", "openvino"]) == 0
    assert "here: openvino 20" in capsys.readouterr().out
    words = [str(files["onnx"]), "--env", ENV, "--backend", "openvino"]
    assert deploy_verbs.run([*words, "--hz", "500", "--steps", "6"]) == 0
    capsys.readouterr()
    assert evaluate([*words, "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2


def test_corrupt_and_foreign_files_by_openvino(files, tmp_path):
    pytest.importorskip("openvino", reason="pip install openvino")
    onnx = pytest.importorskip("onnx")
    (tmp_path / "half.onnx").write_bytes(files["onnx"].read_bytes()[:3000])
    with pytest.raises(
        PolicyError, match=r"half.onnx is not a readable ONNX file \(.*export or copy it again"
    ) as error:
        Policy.load(tmp_path / "half.onnx", "openvino")
    assert "\n" not in str(error.value)
    model = onnx.load(files["onnx"])
    del model.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PolicyError, match="was not written by `noisepilot export`"):
        Policy.load(tmp_path / "foreign.onnx", "openvino")


def test_a_backend_that_cannot(files, monkeypatch):
    for suffix, backend, message in (
        ("npz", "openvino", r"policy.npz is played by numpy: for openvino export to a path that ends in \.onnx"),
        ("onnx", "numpy", r"is played by onnxruntime or openvino: for numpy export to a path that ends in \.npz"),
        ("onnx", "tensorrt", "there is no backend 'tensorrt': choose from numpy, onnxruntime, openvino, "),
    ):
        with pytest.raises(PolicyError, match=message):
            Policy.load(files[suffix], backend)
    with pytest.raises(PolicyError, match="was started with its own backend: give --backend to `noisepilot serve`"):
        open_policy("ws://127.0.0.1:1", backend="openvino")
    with pytest.raises(UserError, match="is played by torch: --backend is for files"):
        evaluate([str(files["npz"].parent), "--backend", "openvino"])
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(PolicyError, match=r"^openvino is missing: pip install openvino$"):
        Policy.load(files["onnx"], "openvino")
