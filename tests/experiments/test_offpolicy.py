"""Off-policy fine-tuning: what an iteration does, demonstrations, learning from recorded data alone, what is saved."""

from pathlib import Path

import numpy as np
import pytest
import torch

from noisepilot.algos import replay
from noisepilot.algos.sac import SAC
from noisepilot.envs import make
from noisepilot.experiments.cli import main
from noisepilot.experiments.offpolicy import OffPolicyLearner
from noisepilot.experiments.recipe import Budget
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.experiments.stepper import TimedEnv
from noisepilot.policies import load_policy
from noisepilot.policies.critic import QMLP
from noisepilot.policies.gaussian import GaussianActor, GaussianMLP
from noisepilot.policies.storage import find_policy

from .runs import EVAL, SIZE, metrics, pretrained
from .runs import SAC as SAC_OPTIONS

SMALL = SAC(actor=GaussianMLP((16,)), critic=QMLP((16,)), batch=8, warmup=10)


def rewards(arrays):
    arrays["rewards"] = np.linspace(0, 1, len(arrays["actions"]), dtype=np.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with the run `base` and `hopper.npz`, which has rewards."""
    return pretrained(tmp_path_factory.mktemp("base"), change=rewards)


@pytest.fixture
def env():
    vector = make("Hopper-v5", 2)
    yield TimedEnv(vector)
    vector.close()


def learner(env, **settings):
    budget = Budget(num_envs=2, decisions=10, iterations=4)
    return OffPolicyLearner(SAC(**(vars(SMALL) | settings)), None, env, budget, seed=0)


def test_gradient_steps_follow_decisions(env):
    for utd, every, counts in ((1.0, 1, [10, 30, 50]), (0.5, 4, [3, 15, 23]), (2.0, 3, [16, 52, 100])):
        found, done = learner(env, utd=utd, train_every=every), []
        for _ in range(3):
            measured = found.iterate()
            done.append(found.grad_steps)
        assert done == counts, (utd, every)
        assert len(found.replay) == 60
        assert found.env_steps == 60
        assert {"train/critic_loss", "time/env_s", "time/sampling_s", "time/update_s"} <= measured.keys()


def test_the_replay_holds_what_happened(env):
    found = learner(env)
    found.iterate()
    kept = replay.columns(found.replay.sample(200, torch.Generator().manual_seed(0)))
    stored = found.replay.tree()["tensors"]
    assert set(kept) == set(stored) == {"action", "reward", "length", "terminated", "obs/state", "next_obs/state"}
    same = ~stored["terminated"][:-2]  # two slots: a slot's next row is two further on
    assert (stored["next_obs/state"][:-2][same] == stored["obs/state"][2:][same]).all()
    assert (stored["length"] == 1).all()
    assert stored["reward"].abs().sum() > 0


def test_what_a_run_holds(tmp_path, base):
    out = tmp_path / "run"
    assert main(["finetune", "hopper", "--policy", base, "--out", str(out), *SAC_OPTIONS]) == 0
    lines, run = metrics(out), RunFolder.open(out)
    assert [line["iteration"] for line in lines] == list(range(7))
    assert [line["grad_steps"] for line in lines][-1] == int(0.3 * (6 * 8 * 4 - 20))
    assert list(run.ledgers()) == [*(f"{n:09d}" for n in (0, 64, 128, 192)), "base"]
    assert run.ledgers()["base"].sampler == "4 steps, eta 1"
    assert run.ledgers()["000000192"].sampler == "gaussianactor"
    actor = load_policy(find_policy(out))
    assert isinstance(actor, GaussianActor)
    assert main(["eval", str(out), "--episodes", "2"]) == 0
    assert RunFolder.open(out).ledgers()["final"].policy_hash == actor.hash()


def demos(base):
    return str(Path(base).parent / "hopper.npz")


def test_learning_from_recorded_data_alone(tmp_path, base):
    out = tmp_path / "run"
    argv = ["finetune", "hopper", "--algo", "dql", "--policy", base, "--data", demos(base), *EVAL]
    argv += ["--algo.batch", "8", "--algo.candidates", "1", "--algo.critic.hidden", "16", "--offline-eval-every", "4"]
    only = ["--offline-steps", "10", "--budget.iterations", "0"]
    assert main([*argv, *only, "--out", str(out)]) == 0
    lines = metrics(out)
    assert [line["grad_steps"] for line in lines] == [0, 4, 8, 10]
    assert {line["env_steps"] for line in lines} == {0}
    assert list(RunFolder.open(out).ledgers()) == [*(f"{n:09d}" for n in (0, 4, 8, 10)), "base"]
    assert RunFolder.open(out).latest_checkpoint().name == "000000010"


@pytest.mark.parametrize("share", ["0", "0.5"])
def test_demonstrations_and_then_experience(tmp_path, base, share):
    argv = ["finetune", "hopper", "--algo", "dql", "--policy", base, "--data", demos(base), *EVAL, "--resume"]
    argv += ["--algo.batch", "8", "--algo.candidates", "1", "--algo.critic.hidden", "16", "--algo.warmup", "4"]
    argv += ["--offline-steps", "6", "--offline-eval-every", "4", "--algo.demo-share", share]
    argv += ["--budget.num-envs", "2", "--budget.decisions", "4"]
    short, long = str(tmp_path / "short"), str(tmp_path / "long")
    for iterations in ("0", "1", "3"):
        assert main([*argv, "--out", short, "--budget.iterations", iterations]) == 0
    assert main([*argv, "--out", long, "--budget.iterations", "3"]) == 0
    lines, windows = metrics(long), 10 * 11
    assert [line["grad_steps"] for line in lines] == [0, 4, 6, 10, 18, 26]
    assert lines[-1]["replay/size"] == 3 * 4 * 2 + (windows if share == "0" else 0)
    evaluated = [line for line in metrics(short) if "eval/mean_reward" in line]
    assert len(evaluated) >= 4
    assert metrics(short)[-1] == lines[-1]
    assert same_weights(short, long)


def same_weights(a, b):
    files = [find_policy(run) / "model.safetensors" for run in (a, b)]
    return files[0].read_bytes() == files[1].read_bytes()


def test_a_fresh_policy_from_data(tmp_path, base):
    out = tmp_path / "run"
    argv = ["finetune", "hopper", "--algo", "fql", "--data", demos(base), "--out", str(out), *EVAL]
    argv += ["--fresh.network.hidden", "16", "16", "16", "--algo.student.hidden", "16", "--algo.critic.hidden", "16"]
    argv += ["--algo.batch", "8", "--algo.act-after", "1", "--offline-steps", "3", "--budget.iterations", "0"]
    assert main(argv) == 0
    policy = load_policy(find_policy(out))
    assert policy.config.sampler.steps == 1
    assert policy.spec.env == "Hopper-v5"
    assert "base" not in RunFolder.open(out).ledgers()
    assert main(["report", str(out)]) == 0  # pictures of what there is: no base
    assert (out / "pictures.json").is_file()


def test_data_cannot_come_or_go_while_a_run_is_resumed(tmp_path, base, capsys):
    argv = ["finetune", "hopper", "--policy", base, *SAC_OPTIONS, "--budget.iterations", "1", "--algo.utd", "1"]
    out, alone = str(tmp_path / "run"), str(tmp_path / "alone")
    assert main([*argv, "--out", out, "--data", demos(base)]) == 0
    assert main([*argv, "--out", alone]) == 0
    assert main([*argv, "--out", out, "--resume"]) == 2
    assert "was begun with --data" in capsys.readouterr().err.splitlines()[-1]
    assert main([*argv, "--out", alone, "--data", demos(base), "--resume"]) == 2
    assert "was begun without --data" in capsys.readouterr().err.splitlines()[-1]
    other = [
        "--algo",
        "dql",
        "--algo.act-after",
        "0",
        "--algo.warmup",
        "1",
        *SIZE,
        "--budget.iterations",
        "1",
        "--out",
        alone,
        "--resume",
    ]
    assert main(["finetune", "hopper", "--policy", base, *other]) == 2
    assert "begun with algo.type algos.sac:SAC, not algos.dql:DQL" in capsys.readouterr().err.splitlines()[-1]


def test_a_replay_on_disk_learns_as_one_in_memory_and_goes_on(tmp_path, base):
    argv = ["finetune", "hopper", "--policy", base, *SAC_OPTIONS]
    for name, options in {"memory": [], "disk": ["--disk-replay"]}.items():
        assert main([*argv, "--out", str(tmp_path / name), *options]) == 0
    assert same_weights(tmp_path / "memory", tmp_path / "disk")
    assert (tmp_path / "disk" / "replay" / "zarr.json").is_file()
    cut = tmp_path / "cut"
    assert main([*argv, "--out", str(cut), "--disk-replay", "--budget.iterations", "2"]) == 0
    assert main([*argv, "--out", str(cut), "--disk-replay", "--resume"]) == 0
    assert same_weights(cut, tmp_path / "disk")
