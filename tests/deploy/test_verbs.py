"""`noisepilot export` and `noisepilot run`, from a policy folder to an environment."""

import json
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from noisepilot.deploy.export import export as write
from noisepilot.deploy.runtime import Policy
from noisepilot.errors import UserError
from noisepilot.experiments.deploy_verbs import export, gate_line, latency_line, run
from noisepilot.experiments.eval_verbs import evaluate
from noisepilot.experiments.serve_verb import serve
from noisepilot.policies import save_policy
from noisepilot.policies.storage import find_policy
from noisepilot.spec import ArraySpec

from .toys import make_policy

ENV = "InvertedPendulum-v5"
TORCH_FREE = """
import sys
from noisepilot.experiments.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy for the inverted pendulum, saved as a run would."""
    policy = make_policy("flow1", {"state": ArraySpec((4,))}, ArraySpec((1,)))
    run_folder = tmp_path_factory.mktemp("run")
    facts = {"method": "bc", "data_hash": "abc"}
    save_policy(policy, run_folder / "checkpoints" / "000000010" / "policy", facts)
    return run_folder


@pytest.fixture(scope="module")
def exported(folder):
    out = folder / "policy.onnx"
    assert export([str(folder), "--out", str(out)]) == 0
    return out


def test_export_of_a_run_takes_its_newest_checkpoint(folder, exported):
    assert find_policy(folder) == folder / "checkpoints" / "000000010" / "policy"
    provenance = Policy.load(exported).metadata["provenance"]
    assert provenance["data_hash"] == "abc"
    assert provenance["source"]["provenance"] == {"method": "bc", "data_hash": "abc"}
    assert len(provenance["source"]["weights_sha256"]) == 64
    assert "torch" in provenance["versions"]


def test_export_with_recorded_observations(folder, tmp_path, capsys):
    import numpy as np

    from noisepilot.datasets.writer import EpisodeWriter

    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", {"env": ENV, "fps": 25.0}) as writer:
        for length in (6, 9):
            writer.append(
                {
                    "observation.state": rng.normal(size=(length, 4)).astype(np.float32),
                    "action": rng.normal(size=(length, 1)).astype(np.float32),
                }
            )
    out = tmp_path / "policy.npz"
    assert export([str(find_policy(folder)), "--out", str(out), "--data", str(tmp_path / "data")]) == 0
    assert "15 observations (recorded)" in capsys.readouterr().out
    assert Policy.load(out).metadata["provenance"]["parity_data_hash"]
    state = Policy.load(out).spec.observations["state"]
    assert len(state["q01"]) == 4
    assert all(low < high for low, high in zip(state["q01"], state["q99"], strict=True))


def test_run_without_torch(exported):
    words = ["run", str(exported), "--env", ENV, "--hz", "500", "--episodes", "2", "--steps", "40", "--json"]
    done = subprocess.run([sys.executable, "-c", TORCH_FREE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["steps"] == sum(episode["length"] for episode in report["episodes"])
    assert report["hz"] == 500
    assert report["inference_ms"]["p50"] > 0


def test_run_prints_episodes_and_one_latency_line(exported, capsys):
    assert run([str(exported), "--env", ENV, "--hz", "1000", "--steps", "10", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["seed", "return", "steps", "success"]
    assert lines[1].split()[0] == "3"
    assert lines[-1].startswith("inference ms  p50 ")
    assert "/10 at 1000.0 Hz" in lines[-1]


def test_run_behind_a_gate(exported, tmp_path, capsys):
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({"velocity": 2, "acceleration": 50.0, "stale_s": 5.0}))
    words = [str(exported), "--env", ENV, "--hz", "200", "--steps", "12", "--gate", str(path)]
    assert run(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("gate  ")
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gate"]["steps"] == 12
    path.write_text('{"speed": 1}')
    with pytest.raises(UserError, match="has an unknown key 'speed'"):
        run(words)


def test_gate_line():
    gate = {"steps": 9, "events": {}, "latched": None}
    assert gate_line(gate) == "gate  passed everything   of 9 steps"
    gate = {"steps": 9, "events": {"invalid": 2, "stale": 1}, "latched": "stale"}
    assert gate_line(gate) == "gate  invalid 2   stale 1   of 9 steps   latched by stale"


@contextmanager
def started(words):
    """`noisepilot serve`, without torch, in a process of its own; gives its address and, after the block, its end."""
    pytest.importorskip("websockets", reason="pip install 'noisepilot[serve]'")
    command = [sys.executable, "-c", TORCH_FREE, "serve", *map(str, words), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        found = SimpleNamespace(address=line.partition(" at ")[2].partition(" ")[0], line=line)
        try:
            yield found
        finally:
            process.terminate()
            _, found.errors = process.communicate(timeout=30)
            found.code = process.returncode


def test_serve_then_run_and_eval(tmp_path, capsys):
    path, token = tmp_path / "p.npz", tmp_path / "token"
    write(make_policy("flow1", {"state": ArraySpec((4,))}, ArraySpec((1,))), path, provenance={})
    token.write_text("word\n")
    with started([path, "--token-file", token]) as server:
        assert server.line == f"{path} at {server.address} (at most 16 observations a call, 64 clients); Ctrl-C stops\n"
        words = ["--env", ENV, "--token-file", str(token), "--json"]
        assert run([server.address, *words, "--steps", "10", "--hz", "500"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 10
        results = []
        for where in (server.address, str(path)):
            assert evaluate([where, *words, "--episodes", "5"]) == 0
            results.append(json.loads(capsys.readouterr().out))
        assert results[0]["return"] == results[1]["return"]
        with pytest.raises(UserError, match="answers 401: the token is missing or wrong"):
            run([server.address, "--env", ENV])
    assert (server.code, server.errors) == (0, "")
    with started([path, "--host", "0.0.0.0"]) as server:
        pass
    assert server.errors == "warning: who reaches 0.0.0.0 may use the policy: give --token-file\n"


def test_serve_refuses(tmp_path):
    (tmp_path / "two").write_text("a b")
    for words, message in (
        (["p.pt2"], r"cannot serve p\.pt2: only \.onnx and \.npz files"),
        (["p.onnx"], "cannot read p.onnx"),
        (["p.onnx", "--token-file", str(tmp_path / "two")], "holds 2 words: write one"),
        (["p.onnx", "--token-file", str(tmp_path / "none")], "cannot read the token in .*No such file"),
        (["p.onnx", "--max-batch", "0"], "max_batch must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            serve(words)


def test_latency_line():
    report = {
        "inference_ms": {"p50": 0.05, "p95": 0.06, "p99": 0.07, "max": 0.5, "count": 9},
        "misses": 0,
        "steps": 1000,
        "hz": 100.0,
        "late_ms_max": 0.0,
        "held": 0,
    }
    times = "inference ms  p50 0.05  p95 0.06  p99 0.07  max 0.50"
    assert latency_line(report) == f"{times}   deadline misses 0/1000 at 100.0 Hz"
    late = latency_line({**report, "misses": 2, "late_ms_max": 3.21, "held": 1})
    assert late == f"{times}   deadline misses 2/1000 at 100.0 Hz (by at most 3.2 ms)   actions held 1"


def test_errors_name_the_fix(folder, exported, tmp_path):
    for words, message in (
        ([str(exported), "--env", "Hopper-v5"], r"sees \{'state': \(4,\)\}, Hopper-v5 shows"),
        ([str(tmp_path / "none.onnx"), "--env", ENV], "cannot read"),
        ([str(exported), "--env", ENV, "--env-kwargs", "[]"], "is not a JSON object"),
        ([str(exported), "--env", ENV, "--hz", "0"], "give a positive one with --hz"),
        ([str(exported), "--env", ENV, "--hz", "inf"], "give a positive one with --hz"),
        ([str(exported), "--env", ENV, "--controller-hz", "0"], "a controller at 0 Hz is no multiple"),
        ([str(exported), "--env", ENV, "--steps", "0"], "must be positive"),
    ):
        with pytest.raises(UserError, match=message):
            run(words)
    with pytest.raises(UserError, match="is not a policy"):
        export([str(tmp_path)])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="does not describe a policy"):
        export([str(tmp_path)])
