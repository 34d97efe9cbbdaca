"""A run killed at any moment and resumed ends as one that never was: to the bit, but for clocks."""

import errno
import os
import random
from pathlib import Path

import pytest

from noisepilot import files
from noisepilot.experiments.cli import main

from .runs import DSRL, FINETUNE, PRETRAIN, RESIP, SAC, drive, leftovers, pretrained, same_runs, write_data

CHECKPOINT = "noisepilot.experiments.checkpoint"
KILLED, INTERRUPTED = -9, 130


def moments(seed, count):
    draw = random.Random(seed)
    return [draw.uniform(0.1, 0.9) for _ in range(count)]


def kill_and_resume(folder, argv, kills):
    """An undisturbed run and one that dies of every kill in turn; returns their folders."""
    whole, killed = str(folder / "whole"), str(folder / "killed")
    disturbed = [([*argv, "--out", killed, "--resume"], kill) for kill in kills]
    ends, said = drive(([*argv, "--out", whole], None), *disturbed, ([*argv, "--out", killed, "--resume"], None))
    assert (ends[0], ends[-1]) == (0, 0), said
    # A kill by the clock may come after the end; a kill at a call never does.
    assert all(
        end == KILLED or (end == 0 and isinstance(kill, float)) for end, kill in zip(ends[1:-1], kills, strict=True)
    ), (ends, said)
    assert not leftovers(killed)
    return whole, killed


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("base"))


def test_pretraining(tmp_path):
    data = write_data(tmp_path / "demos.npz")
    kills = [
        ["noisepilot.files:os.replace", 1],  # config.json
        ["noisepilot.algos.bc:BC.update", 3],  # before the first checkpoint
        [f"{CHECKPOINT}:save_state", 2],
        ["half", 3],  # the policy is half written
        ["noisepilot.experiments.run_folder:RunFolder.log", 1],
        [f"{CHECKPOINT}:shutil.rmtree", 2],  # the older training state is about to go
        *moments(0, 4),
    ]
    same_runs(*kill_and_resume(tmp_path, ["pretrain", "hopper", "--data", data, *PRETRAIN], kills))


def test_finetuning(tmp_path, base):
    kills = [
        ["noisepilot.experiments.finetune:evaluate", 1],
        ["noisepilot.algos.dppo:DPPO.update", 1],
        ["half", 2],  # the first training state is half written
        ["noisepilot.experiments.rollout:Collector.collect", 2],
        ["noisepilot.algos.dppo:DPPO.update", 2],
        ["noisepilot.experiments.run_folder:RunFolder.log", 2],
        [f"{CHECKPOINT}:atomic_folder", 1],
        ["noisepilot.experiments.finetune:evaluate", 1],
        *moments(1, 4),
    ]
    same_runs(*kill_and_resume(tmp_path, ["finetune", "hopper", "--policy", base, *FINETUNE], kills))


def test_off_policy(tmp_path, base):
    kills = [
        ["noisepilot.algos.sac:SAC.update", 3],  # before the first checkpoint
        ["noisepilot.algos.replay:Replay.add", 20],
        ["half", 4],
        ["noisepilot.algos.sac:SAC.update", 7],
        ["noisepilot.experiments.finetune:evaluate", 1],
        *moments(3, 2),
    ]
    argv = ["finetune", "hopper", "--policy", base, *SAC, "--env-kwargs", '{"max_episode_steps": 10}']
    same_runs(*kill_and_resume(tmp_path, argv, kills))


def test_policies_inside_environments(tmp_path):
    """The environment holds a frozen policy, its history and the chunk that it is playing."""
    policy = pretrained(tmp_path, "hopper", "--policy.sampler.eta", "0")
    for name, options, kill in (
        ("dsrl", DSRL, ["noisepilot.algos.noise_env:NoiseEnv.step", 14]),
        ("resip", RESIP, ["noisepilot.algos.residual_env:ResidualEnv.step", 15]),
    ):
        argv = ["finetune", "hopper", "--policy", policy, *options, "--env-kwargs", '{"max_episode_steps": 10}']
        (tmp_path / name).mkdir()
        same_runs(*kill_and_resume(tmp_path / name, argv, [kill]))


def test_worker_environments_continue_by_seed_and_replay(tmp_path):
    policy = pretrained(tmp_path, "default", obs=3, action=1, limit=2.0)
    argv = ["finetune", "default", "--policy", policy, "--env", "Pendulum-v1", *FINETUNE]
    short = ["--budget.iterations", "3", "--env-kwargs", '{"max_episode_steps": 50}']
    kills = [["noisepilot.algos.dppo:DPPO.update", 2], *moments(2, 2)]
    same_runs(*kill_and_resume(tmp_path, [*argv, *short], kills))


def test_equal_seeds_make_equal_runs(tmp_path, base):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        argv = ["finetune", "hopper", "--policy", base, *FINETUNE, "--budget.iterations", "2", "--seed", seed]
        assert main([*argv, "--out", str(tmp_path / name)]) == 0
    same_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        same_runs(tmp_path / "a", tmp_path / "c")


def test_ctrl_c_leaves_one_line_and_no_torn_checkpoint(tmp_path, base):
    argv = ["finetune", "hopper", "--policy", base, *FINETUNE]
    whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
    again = [*argv, "--out", stopped, "--resume"]
    calls = (["noisepilot.algos.dppo:DPPO.update", 3], ["half", 2])
    ends, said = drive(*((again, [*call, "SIGINT"]) for call in calls))
    assert ends == [INTERRUPTED, INTERRUPTED]
    assert said.count("stopped: the same command with --resume continues") == 2
    assert "Traceback" not in said
    assert not leftovers(stopped)
    assert drive(([*argv, "--out", whole], None), (again, None))[0] == [0, 0]
    same_runs(whole, stopped)


def test_a_full_disk_costs_no_checkpoint(tmp_path, base, monkeypatch, capsys):
    argv = ["finetune", "hopper", "--policy", base, *FINETUNE, "--budget.iterations", "3"]
    whole, out = str(tmp_path / "whole"), tmp_path / "full"
    assert main([*argv, "--out", whole]) == 0
    for room in range(0, 40, 4):  # files that still fit
        count = iter(range(room))

        def full(handle, fsync=os.fsync, count=count):
            if next(count, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", full)
            code = main([*argv, "--out", str(out), "--resume"])
        last = capsys.readouterr().err.splitlines()[-1]
        if code == 0:
            break
        assert code == 2
        assert last.startswith("error: cannot write")
        assert last.endswith("the disk is full; free some space or choose another disk")
        assert not leftovers(out)
    assert main([*argv, "--out", str(out), "--resume"]) == 0
    same_runs(whole, out)


def test_nothing_is_written_where_nothing_can_be(tmp_path, base, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "run")
    for argv in (
        ["pretrain", "hopper", "--data", write_data(tmp_path / "demos.npz"), *PRETRAIN],
        ["finetune", "hopper", "--policy", base, *FINETUNE],
    ):
        assert main([*argv, "--out", out]) == 2
        assert "a file stands where a folder is needed" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demos.npz", "file"]


def test_resume_refuses_other_data_and_settings(tmp_path, base, capsys):
    other = write_data(tmp_path / "other.npz", seed=1)
    same = str(Path(base).parent / "hopper.npz")
    for argv, words in (
        ([other, *PRETRAIN], "other data"),
        ([same, *PRETRAIN, "--bc.lr", "0.5"], "begun with bc.lr 0.001, not 0.5"),
        ([same, *PRETRAIN, "--seed", "7"], "begun with seed 0, not 7"),
    ):
        assert main(["pretrain", "hopper", "--resume", "--out", base, "--data", *argv]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_resume_goes_on_for_longer(tmp_path, base):
    argv = ["finetune", "hopper", "--policy", base, *FINETUNE]
    short, long = str(tmp_path / "short"), str(tmp_path / "long")
    assert main([*argv, "--out", short, "--budget.iterations", "2"]) == 0
    assert main([*argv, "--out", short, "--budget.iterations", "4", "--resume"]) == 0
    assert main([*argv, "--out", long, "--budget.iterations", "4"]) == 0
    same_runs(short, long)


def test_a_damaged_training_state_is_named(tmp_path, base, capsys):
    argv = [
        "finetune",
        "hopper",
        "--policy",
        base,
        *FINETUNE,
        "--budget.iterations",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(argv) == 0
    (state,) = tmp_path.glob("run/checkpoints/*/training_state/state.safetensors")
    state.write_bytes(state.read_bytes()[:100])
    assert main([*argv, "--resume"]) == 2
    assert "cannot be read" in capsys.readouterr().err.splitlines()[-1]
