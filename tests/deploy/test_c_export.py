"""`export` to C: the certificate, the verb, the documentation's program, and what is refused."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from noisepilot.deploy import compiled
from noisepilot.deploy.c_source import read_metadata
from noisepilot.deploy.compiled import find_compiler
from noisepilot.deploy.export import export
from noisepilot.deploy.runtime import Policy as Exported
from noisepilot.deploy.runtime import PolicyError
from noisepilot.errors import UserError
from noisepilot.experiments import deploy_verbs
from noisepilot.policies import save_policy
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.policies.noise_space import NoiseSpace
from noisepilot.policies.steered import SteeredConfig
from noisepilot.spec import ArraySpec

from .toys import ACTION, make_policy

STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
try:
    COMPILER = find_compiler()
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_certificate(tmp_path, precision):
    policy = make_policy("ddpm20")
    path = export(policy, tmp_path / "p.c", provenance={}, precision=precision)
    parity = read_metadata(path.read_bytes())["parity"]
    assert parity["observations"] == 256
    assert parity["max_relative_difference"] < 1e-5
    assert parity["backend"].endswith("-std=c99 -O3")
    assert ("rounding" in parity) == (precision == "bfloat16")
    if precision == "bfloat16":
        rounding = parity["rounding"]
        assert 1e-5 < rounding["mean_relative_difference"] < rounding["max_relative_difference"] < 0.02
    head = path.read_text().partition("*/")[0]
    assert f"{parity['max_relative_difference']:.1e}" in head
    assert "Elements: left, right." in head
    assert "unit N." in head
    assert path.stat().st_size < 100_000


def test_verb(tmp_path, capsys):
    save_policy(make_policy("flow1"), tmp_path / "policy", {})
    out = tmp_path / "policy.c"
    assert deploy_verbs.export([str(tmp_path / "policy"), "--out", str(out), "--precision", "bfloat16"]) == 0
    said = capsys.readouterr().out
    assert "of torch over 256 observations" in said
    assert "rounding the weights before moved actions by" in said
    with pytest.raises(PolicyError, match=r"is C source: compile it into your program, or export to \.onnx or \.npz"):
        Exported.load(out)


def test_example_of_the_documentation(tmp_path):
    """The program in docs/deploy.md, compiled with the policy it is written for, in C and beside C++."""
    page = (Path(compiled.__file__).parents[1] / "docs" / "deploy.md").read_text()
    found = re.search(r"```c\n(.*?)```", page, re.DOTALL)
    assert found is not None
    export(make_policy("ddim5", {"state": ArraySpec((4,))}, ACTION), tmp_path / "policy.c", provenance={})
    (tmp_path / "robot.c").write_text(found[1])
    words = [*COMPILER, *STRICT, "-o", "robot", "robot.c", "-lm"]
    subprocess.run(words, cwd=tmp_path, check=True)
    done = subprocess.run(["./robot"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 4 * 2
    assert np.isfinite(np.array(done.stdout.split(), float)).all()
    (tmp_path / "other.cpp").write_text('#define NOISEPILOT_DECLARATIONS\n#include "policy.c"\n')
    if shutil.which("c++"):
        subprocess.run(["c++", "-Wall", "-Werror", "-fsyntax-only", "other.cpp"], cwd=tmp_path, check=True)


def test_refusals_name_the_fix(tmp_path, monkeypatch):
    policy = make_policy("flow1")
    steered = SteeredConfig(policy.config, GaussianMLP((16, 16)), NoiseSpace("full", bound=1.5), True)
    actor = steered.build(policy.spec, policy).eval()
    with pytest.raises(UserError, match=r"^a \.c file holds plain MLP policies only: export to .* \.onnx$"):
        export(actor, tmp_path / "p.c", provenance={})
    with pytest.raises(UserError, match=r"^a \.c file has weights in float32 or bfloat16: .* ends in \.onnx for int8$"):
        export(policy, tmp_path / "p.c", provenance={}, precision="int8")
    broken = make_policy("flow1")
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(torch.nan)
    with pytest.raises(UserError, match="weights are not finite"):
        export(broken, tmp_path / "p.c", provenance={})
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(UserError, match=r"^C source is compiled .* no compiler 'no-such-compiler': install gcc or"):
        export(policy, tmp_path / "p.c", provenance={})
    monkeypatch.setenv("CC", f"{COMPILER[0]} -no-such-flag-at-all")
    with pytest.raises(UserError, match=r"^the C compiler refuses the policy: .*; name another compiler in CC$"):
        export(policy, tmp_path / "p.c", provenance={})
    assert list(tmp_path.iterdir()) == []


def test_refuses_code_that_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.Compiled, "__call__", lambda self, feeds: np.ones((1, 4, 2), np.float32))
    with pytest.raises(UserError, match="differs from torch by"):
        export(make_policy("flow1"), tmp_path / "p.c", provenance={})
    assert list(tmp_path.iterdir()) == []
