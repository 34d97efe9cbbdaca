"""Runs of a second: networks of 16 units, a made-up set of demonstrations, and how two runs are compared."""

import json
import subprocess
import sys
from pathlib import Path
from shlex import split

import numpy as np

from noisepilot.experiments.cli import main

KILLING = Path(__file__).with_name("killing.py")
POLICY = split("--policy.network.hidden 16 16 16 --policy.path.levels 4 --policy.sampler.steps 4")
BC = split("--bc.grad-steps 24 --bc.batch 16 --log-every 6 --checkpoint-every 4")
PRETRAIN = [*POLICY, *BC]
DPPO = split("--algo.finetune-steps 2 --algo.minibatch 32 --algo.epochs 2 --algo.critic.hidden 16 16 16")
SIZE = split("--budget.num-envs 4 --budget.decisions 8 --budget.iterations 6")
EVAL = split("--budget.eval-every 2 --budget.eval-episodes 2")
FINETUNE = [*DPPO, *SIZE, *EVAL]
SMALL_SAC = split("--algo.actor.hidden 16 16 --algo.critic.hidden 16 16 --algo.batch 16 --algo.warmup 20")
WRAPPED = split("--budget.num-envs 4 --budget.decisions 6 --budget.iterations 4 --budget.eval-every 2")
DSRL = ["--algo", "dsrl-sac", "--checkpoint-every", "1", *SMALL_SAC, *WRAPPED, "--budget.eval-episodes", "2"]
RESIP = ["--algo", "resip", *split("--algo.minibatch 8 --algo.epochs 2"), *WRAPPED, "--budget.eval-episodes", "2"]
SAC = ["--algo", "sac", *SMALL_SAC, *split("--algo.utd 0.3 --algo.train-every 3 --checkpoint-every 1"), *SIZE, *EVAL]


def write_data(path, *, obs=11, action=3, lengths=(12,) * 10, limit=1.0, change=None, seed=0):
    """An .npz set in DPPO's layout; by default for Hopper. `change` edits the arrays."""
    rng, steps = np.random.default_rng(seed), sum(lengths)
    arrays = {
        "states": rng.normal(size=(steps, obs)).astype(np.float32),
        "actions": rng.uniform(-limit, limit, (steps, action)).astype(np.float32),
        "traj_lengths": np.array(lengths),
    }
    if change:
        change(arrays)
    np.savez(path, allow_pickle=False, **arrays)
    return str(path)


def pretrained(folder, recipe="hopper", *options, **data):
    """The folder of a tiny pre-training on made-up data."""
    demos, out = write_data(folder / f"{recipe}.npz", **data), str(folder / "base")
    assert main(["pretrain", recipe, "--data", demos, "--out", out, *PRETRAIN, *options]) == 0
    return out


def drive(*steps):
    """Run steps `(argv, kill)` in children of another process, see killing.py; returns their ends and stderr."""
    given = json.dumps([{"argv": argv, "kill": kill} for argv, kill in steps])
    done = subprocess.run([sys.executable, str(KILLING)], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def same_runs(a, b):
    """Assert that two runs differ in wall-clock times alone."""
    a, b = Path(a), Path(b)
    assert metrics(a) == metrics(b)
    names = sorted(str(p.relative_to(a)) for p in a.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(b)) for p in b.rglob("*") if p.is_file())
    for name in names:
        if name.endswith(".safetensors"):
            assert (a / name).read_bytes() == (b / name).read_bytes(), name
        if name.startswith("eval") or name.endswith("state.json"):
            ours, theirs = (json.loads((run / name).read_text()) | {"wall_s": 0, "policy": ""} for run in (a, b))
            assert ours == theirs, name


def metrics(run):
    """Lines of metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    clock = ("wall_s", "time/fps", "time/env_s", "time/sampling_s", "time/update_s")
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


def leftovers(folder):
    """What a killed writer left."""
    return [str(p) for p in Path(folder).rglob("*.tmp")]
