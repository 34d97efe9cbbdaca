"""Machine code is refused wherever nobody said that it is trusted. That it plays: tests/suites/test_native.py."""

import pytest

from noisepilot.deploy import native
from noisepilot.deploy.export import export
from noisepilot.deploy.runtime import Policy, PolicyError
from noisepilot.errors import UserError
from noisepilot.experiments import deploy_verbs
from noisepilot.experiments.serve_verb import serve

from .toys import make_policy


def test_refusals(tmp_path, monkeypatch):
    path = tmp_path / "policy.pt2"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(PolicyError, match=r"is machine code, which neither runtime nor server run: `noisepilot run"):
        Policy.load(path)
    with pytest.raises(UserError, match=r"only \.onnx and \.npz files"):
        serve([str(path)])
    for play in (lambda: native.load(path, trust=False), lambda: deploy_verbs.run([str(path)])):
        with pytest.raises(UserError, match=r"runs code of whoever wrote it, with your rights: say --trust"):
            play()
    with pytest.raises(UserError, match="was not written by"):
        native.load(path, trust=True)
    with pytest.raises(UserError, match=r"cannot read .*none.pt2: No such file"):
        native.load(tmp_path / "none.pt2", trust=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"there is no 'no-such-compiler': install g\+\+, or name yours in CXX"):
        export(make_policy("flow1"), tmp_path / "p.pt2", provenance={})
    with pytest.raises(UserError, match=r"^a \.pt2 file has weights in float32: .* ends in \.onnx for int8$"):
        export(make_policy("flow1"), tmp_path / "p.pt2", provenance={}, precision="int8")
