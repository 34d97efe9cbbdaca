"""Benchmarks run and report rows of one schema; no test looks at a time."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch

from noisepilot.benchmarks import playing, sampling, suite
from noisepilot.benchmarks.limits import Limits
from noisepilot.benchmarks.peers import DiffusersLoop
from noisepilot.benchmarks.race import QUICK, Effort, Variant, race, settings
from noisepilot.benchmarks.toys import calls, chain_cost, chain_weights, make_policy, make_unet, observations, unet_cost
from noisepilot.errors import UserError
from noisepilot.experiments.bench_verbs import bench

TINY = Effort(rounds=1, burst=1, envs=2, decisions=2)


def check(rows):
    for row in rows:
        assert set(row) == {"name", "value", "unit", "fraction_of_limit", "ratios", "spread", "note"}
        assert (row["value"] is None) == bool(row["note"])
        assert row["note"] or row["value"] > 0
        assert row["fraction_of_limit"] is None or row["fraction_of_limit"] > 0
        assert all(x > 0 for x in row["ratios"].values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sampler/batch1/K1/", {"eager", "onnxruntime", "numpy", "diffusers"}),
        ("sampler/batch40/K1/", {"eager", "onnxruntime", "diffusers"}),
        ("c/relu/K1/", {"float32", "bfloat16", "call", "onnxruntime", "numpy", "diffusers"}),
        ("runtime/K1/", {"torch", "diffusers", "onnxruntime", "openvino", "numpy", "c-float32", "c-bfloat16"}),
        ("env/Ant-v5", {"native", "gymnasium-sync", "gymnasium-async"}),
        ("rollout", {"K20"}),
        ("offpolicy/dql", {"dql"}),
        ("offpolicy/fql", {"fql"}),
        ("bc/batch128", {"threads1"}),
        ("data/random", {"memory", "zarr", "mp4", "lerobot", "lerobot-cached", "parquet-png", "hdf5"}),
        ("data/sequential", {"zarr", "mp4", "lerobot-cached", "parquet-png", "hdf5", "bare"}),
        ("offpolicy/sac", {"ours", "stable-baselines3"}),
        ("dppo", {"env", "sampling", "scoring", "update", "iteration"}),
    ],
)
def test_rows(name, expected):
    rows = [suite.as_dict(row) for row in suite.run([name], TINY)]
    check(rows)
    assert expected <= {row["name"].rpartition("/")[2] for row in rows}


def test_players_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "diffusers.schedulers", None)
    monkeypatch.setenv("CC", "no-such-compiler")
    exported = sampling.onnx_file(make_policy(1))
    monkeypatch.setattr(playing, "onnx_file", lambda policy: exported)
    rows = {row.name.removeprefix("runtime/K1/"): row for row in suite.run(["runtime/K1"], TINY)}
    for name in ("openvino", "diffusers", "c-float32", "c-bfloat16"):
        assert rows[name].note.startswith("not measured: ")
        assert suite.as_dict(rows[name])["value"] is None
    assert "pip install openvino" in rows["openvino"].note
    median = rows["onnxruntime"]
    assert median.ratios is None
    assert median.spread is not None
    assert median.spread["p99"] >= median.value
    assert median.spread["p99/p50"] == pytest.approx(median.spread["p99"] / median.value)


def test_a_unet_of_two_steps(monkeypatch):
    """Its rows, and the exported network's numbers in passing: exporting every step is what takes time."""
    policy = make_unet("small", steps=2)
    exported = sampling.as_onnx(policy)
    monkeypatch.setattr(sampling, "make_unet", lambda name: policy)
    monkeypatch.setattr(sampling, "as_onnx", lambda policy: exported)
    rows = [suite.as_dict(row) for row in suite.run(["unet/small"], TINY)]
    check(rows)
    found = {row["name"].rpartition("/")[2] for row in rows if row["name"].startswith("unet/small")}
    assert found == {"eager", "packed", "onnxruntime", "diffusers"}
    for batch in (1, 7):
        obs, noise = observations(batch, policy), policy.noise(batch, torch.Generator().manual_seed(3))
        theirs = exported.act({"state": obs["state"].numpy()}, noise.numpy())
        assert (policy.act(obs, noise) - torch.from_numpy(theirs)).abs().max() < 1e-5


def test_pictures_are_encoded_once_per_gradient_step():
    rows = {row.name.removeprefix("bc/vit/"): row for row in suite.run(["bc/vit"], TINY)}
    check([suite.as_dict(row) for row in rows.values()])
    for name, encoded in (("draws1", 2), ("draws8", 2), ("repeated8", 16)):
        assert (rows[f"{name}/encoder-calls"].value, rows[f"{name}/encoded"].value) == (1, encoded)
    assert rows["draws8-over-draws1"].value == pytest.approx(rows["draws8"].value / rows["draws1"].value)
    assert rows["draws8"].ratios.keys() == {"draws1", "repeated8"}


def test_an_update_with_pictures_encodes_a_decision_once_per_network_and_step():
    rows = {row.name.removeprefix("dppo/vit/"): row for row in suite.run(["dppo/vit"], TINY)}
    total = min(32, TINY.envs * TINY.decisions)
    steps = 5
    # Policy: audit, old log-probs, first ratios (one of two minibatches), gradients. Critic: values, next, gradients.
    assert rows["ours/encoded"].value == (2 + 0.5 + 1) * total + 3 * total
    assert rows["every-pair/encoded"].value > 2 * steps * total


def test_a_server_loses_no_answer_and_gives_no_wrong_one():
    pytest.importorskip("websockets", reason="pip install 'noisepilot[serve]'")
    rows = {row.name.removeprefix("serve/"): row for row in suite.run(["serve"], replace(TINY, requests=64))}
    assert (rows["lost"].value, rows["wrong"].value) == (0, 0)
    for name in ("throughput", "round-trip/p50", "overhead/p50", "memory/before", "memory/after"):
        assert rows[name].value > 0


def test_calls_are_counted_inside_the_block_alone():
    layer = torch.nn.Linear(2, 2)
    with calls(layer) as counted:
        layer(torch.zeros(3, 2))
        layer(torch.zeros(5, 2))
    layer(torch.zeros(7, 2))
    assert counted == [3, 5]


def test_verb(capsys):
    assert bench(["sampler/batch1/K1/eager", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check(found)
    names = [row["name"] for row in found]
    assert names[0] == "sampler/batch1/K1/eager"
    assert all(name.startswith("limit/") for name in names[1:])
    assert {"processor", "cores", "torch", "load"} <= suite.machine().keys()
    assert bench(["sampler/batch1/K1/eager", "--quick"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[0] == "name"


def test_unknown_names():
    with pytest.raises(UserError, match="did you mean"):
        suite.choose(["sampler/batch2"])
    with pytest.raises(UserError, match="no row begins"):
        list(suite.run(["rollout/batch40/nothing"], TINY))


def test_choice():
    assert suite.choose([]) == list(suite.CASES)
    assert suite.choose(["env/Ant-v5/native"]) == ["env/Ant-v5"]
    assert suite.choose(["sampler/batch1/K10"]) == ["sampler/batch1/K10"]


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_the_peer_computes_the_same(steps):
    policy = make_policy(steps)
    obs, noise = observations(6), policy.noise(6, torch.Generator().manual_seed(3))
    theirs = DiffusersLoop(policy)(obs["state"].flatten(1), noise[:, 0])
    assert (policy.act(obs, noise) - theirs).abs().max() < 1e-4


def test_the_peer_of_a_unet_computes_the_same():
    policy = make_unet("small")
    obs, noise = observations(3, policy), policy.noise(3, torch.Generator().manual_seed(3))
    theirs = DiffusersLoop(policy)(obs["state"].flatten(1), noise[:, 0])
    assert (policy.act(obs, noise) - theirs).abs().max() < 1e-4


def test_cost_counts_a_unets_convolutions():
    """Chunk 4 x 7; channels 64 at 4 steps, 128 at 2."""
    first = 5 * 64 * (7 + 64) + 7 * 64 + 2 * 5 * 64 * 64  # two blocks, the first with a skip
    down, up = 3 * 64 * 64, 4 * 64 * 64
    second = 5 * 128 * (64 + 128) + 64 * 128 + 3 * 2 * 5 * 128 * 128  # two blocks, and the two in the middle
    back = 5 * 64 * (256 + 64) + 256 * 64 + 2 * 5 * 64 * 64
    last = 5 * 64 * 64 + 64 * 7
    held = first + down + second + back + up + last
    multiplied = 4 * (first + last) + 2 * (down + second + back + up)
    assert unet_cost(make_unet("small")) == (2 * 10 * multiplied, 4 * held, 10)


def test_cost_counts_the_folded_network():
    policy = make_policy(20)
    per_step = 12 * 512 + 2 * 512 * 512 + 512 * 12
    assert chain_weights(policy) == per_step
    assert chain_cost(policy, 40) == (2 * 40 * 20 * per_step, 4 * per_step, 20)


def test_race_restores_settings():
    threads, seen = torch.get_num_threads(), []
    run = Variant(lambda: seen.append(torch.get_float32_matmul_precision()), fast_matmul=True, threads=1)
    best = race({"a": run}, TINY)
    assert set(seen) == {"medium"}
    assert math.isfinite(best["a"])
    with settings(False, 1):
        pass
    assert torch.get_num_threads() == threads
    assert torch.get_float32_matmul_precision() == "highest"


def test_limits_are_measured_once():
    limits = Limits(QUICK, fast_matmul=False)
    assert limits.gemm(1) == limits.gemm(1)
    assert limits.seconds(1e9, 0.0 + 4096, 1, 1) >= 1e9 / limits.gemm(1)


def test_every_way_reads_the_same_frames():
    from contextlib import ExitStack

    import numpy as np

    from noisepilot.benchmarks.frames import CAMERA, Shelf

    rows = np.array([3, 40, 41, 150])
    with ExitStack() as stack:
        shelf = Shelf(stack, TINY)
        frames = shelf.episodes.data[CAMERA][rows]
        assert (shelf.memory(rows).obs["images.front"][:, 0].numpy() == frames).all()
        for exact in (shelf.zarr, shelf.parquet, shelf.hdf5):
            assert (np.stack(list(exact(rows))) == frames).all()
        for lossy in (shelf.mp4, shelf.lerobot, shelf.lerobot_cached):
            assert np.abs(np.stack(list(lossy(rows))).astype(int) - frames).mean() < 3
