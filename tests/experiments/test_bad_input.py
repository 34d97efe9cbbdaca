"""What a user gives wrongly is answered by one line that names it and the fix, and leaves nothing behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noisepilot.datasets.readers import load
from noisepilot.deploy.runtime import Policy, PolicyError
from noisepilot.envs import make_core
from noisepilot.envs.vector import TensorEnv
from noisepilot.experiments.cli import main
from noisepilot.experiments.stepper import TimedEnv
from noisepilot.policies import PolicyConfig, save_policy
from noisepilot.policies.gaussian import GaussianConfig, GaussianMLP
from noisepilot.policies.residual import ResidualConfig
from noisepilot.policies.storage import find_policy

from .runs import DPPO, FINETUNE, PRETRAIN, pretrained, write_data

STEP = TensorEnv.step


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with `hopper.npz`, the run `base`, the exported `policy.onnx`."""
    folder = tmp_path_factory.mktemp("made")
    pretrained(folder)
    assert main(["export", str(folder / "base"), "--out", str(folder / "policy.onnx")]) == 0
    return folder


@pytest.fixture
def refused(made, tmp_path, monkeypatch, capsys):
    """A function that runs a command beside `made`'s files and returns its one line of error."""
    here = tmp_path / "here"
    shutil.copytree(made, here)
    monkeypatch.chdir(here)

    def run(*argv: str) -> str:
        before = contents()
        capsys.readouterr()
        assert main(list(argv)) == 2
        assert contents() == before
        (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Skipping")]
        assert line.startswith("error: ")
        return line

    return run


def contents():
    return {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}


def rows(key, value):
    def change(arrays):
        arrays[key][7, 2] = value

    return change


def cut(key, index):
    def change(arrays):
        arrays[key] = arrays[key][index]

    return change


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"change": rows("states", np.nan)}, "'observation.state' holds a NaN or infinite value (first in row 7)"),
        ({"change": rows("actions", np.inf)}, "'action' holds a NaN or infinite value (first in row 7)"),
        ({"change": cut("actions", slice(3, None))}, "'actions' has 117 rows but the episodes sum up to 120"),
        ({"change": cut("states", slice(3, None))}, "'observation.state' has (117, 11) but must have 120 rows"),
        ({"change": cut("actions", (slice(None), 0))}, "must be (steps, action dimension)"),
        ({"lengths": (12, 0, 12)}, "episode 1 has no steps"),
        ({"lengths": (1,) * 20}, "no episode is as long as horizon 4 (longest: 1)"),
        ({"lengths": (40,)}, "one episode and cannot be split"),
        ({"lengths": ()}, "holds no episodes"),
        ({"limit": 50.0}, "action: 100 % of steps exceed the limits, in dimensions 0, 1, 2: clip or rescale them"),
        ({"obs": 17}, "shape (17,), but Hopper-v5 has (11,)"),
        ({"action": 2}, "shape (2,), but Hopper-v5 has (3,)"),
    ],
)
def test_datasets(refused, options, words):
    write_data("bad.npz", **options)
    assert words in refused("pretrain", "hopper", "--data", "bad.npz", "--out", "run", *PRETRAIN)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.npz", b"PK\x03\x04 and no more", "bad.npz is not a readable archive"),
        ("bad.h5", b"\x89HDF\r\n\x1a\n and no more", "bad.h5 is not a readable HDF5 file"),
        ("bad.npz", b"words", "bad.npz is not a dataset"),
        ("bad.zarr/zarr.json", b"{", "bad.zarr cannot be read as a dataset"),
    ],
)
def test_damaged_datasets(refused, name, content, words):
    if name.endswith("h5"):
        pytest.importorskip("h5py")
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)
    data = name.partition("/")[0]
    assert words in refused("pretrain", "hopper", "--data", data, "--out", "run", *PRETRAIN)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"words", "model.safetensors is corrupt"),
        ("model.safetensors", None, "has no model.safetensors"),
        ("config.json", None, "is not a policy: it has no config.json"),
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"\xff\xfe", "config.json is not JSON"),
        ("config.json", b"[]", "does not describe a policy"),
        ("config.json", b'{"format": 1, "config": {}, "spec": {}}', "does not describe a policy"),
        ("config.json", b'{"format": 99, "config": {}, "spec": {}}', "newer than 1: update noisepilot"),
    ],
)
def test_damaged_policies(refused, name, content, words):
    file = find_policy("base") / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    folder = str(file.parent)
    assert words in refused("eval", folder, "--env", "Hopper-v5")
    assert words in refused("finetune", "hopper", "--policy", folder, "--out", "run", *FINETUNE)
    assert words in refused("distill", "hopper", "--policy", folder, "--out", "run")


def test_a_policy_whose_parts_do_not_fit(refused):
    folder = find_policy("base")
    config = json.loads((folder / "config.json").read_text())
    config["spec"]["horizon"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    assert "model.safetensors does not fit its config.json" in refused("eval", str(folder))


def test_an_actor_that_is_more_than_a_policy(refused):
    core = make_core("Hopper-v5")
    core.close()
    spec = replace(PolicyConfig().spec_for(core.spec), horizon=1, n_action_steps=1)
    actor = GaussianConfig(GaussianMLP((8,))).build(spec)
    for name, array in {**spec.obs, "action": spec.action}.items():
        actor.normalizer.fit(name, -np.ones(array.shape), np.ones(array.shape))
    save_policy(actor, "actor")
    for command in ("finetune hopper --policy actor", "distill hopper --policy actor", "bakeoff hopper --policy actor"):
        assert "actor holds a GaussianActor, but" in refused(*command.split(), "--out", "run")
    corrected = ResidualConfig(PolicyConfig()).build(replace(spec, horizon=4, n_action_steps=4))
    corrected.normalizer.load_state_dict(actor.normalizer.state_dict())
    save_policy(corrected, "corrected")
    line = refused("export", "corrected", "--out", "actor.onnx")
    assert "corrected holds a Residual, which corrects every step of a chunk that it remembers: export the" in line
    assert "plain MLP policies only" in refused("export", "actor", "--out", "actor.npz")


@pytest.mark.parametrize("algo", ["dppo", "sac"])
def test_a_reward_that_is_not_finite(made, tmp_path, monkeypatch, capsys, algo):
    monkeypatch.setattr(TimedEnv, "step", nan_reward)
    argv = ["finetune", "hopper", "--policy", str(made / "base"), "--out", str(tmp_path / "run"), "--algo", algo]
    options = DPPO if algo == "dppo" else []
    assert main([*argv, *options, "--budget.eval-episodes", "1", "--budget.num-envs", "2"]) == 2
    assert "Hopper-v5 returned a reward that is not finite" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_reward_that_is_not_finite_while_evaluating(made, monkeypatch, capsys):
    monkeypatch.setattr(TensorEnv, "step", lambda env, action: nan_reward(env, action, STEP))
    assert main(["eval", str(made / "base"), "--episodes", "1"]) == 2
    assert "Hopper-v5 returned a reward that is not finite" in capsys.readouterr().err.splitlines()[-1]


def nan_reward(env, action, step=None):
    step = (step or TensorEnv.step)(env, action)
    return replace(step, reward=step.reward * np.nan)


def test_a_policy_without_a_normaliser(refused):
    from safetensors.numpy import load_file, save_file

    file = find_policy("base") / "model.safetensors"
    weights = load_file(file)
    weights["normalizer.center_state"][:] = np.nan
    save_file(weights, file)
    line = refused("finetune", "hopper", "--policy", "base", "--out", "run", *FINETUNE)
    assert "the normaliser of 'state' is missing: fit it on data" in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("pretran", "unknown verb 'pretran': did you mean 'pretrain'?"),
        ("data collct", "unknown data verb 'collct': did you mean 'collect'?"),
        ("pretrain hoper --data hopper.npz --out run", "unknown recipe 'hoper': did you mean 'hopper'?"),
        ("finetune hopper --algo dpo --policy base --out run", "unknown algorithm 'dpo': did you mean 'dppo'?"),
        ("finetune hopper --policy base --out run --env Hoper-v5", "did you mean 'Hopper-v5'?"),
        ("finetune walker2d --policy base --out run TUNE", "policy (made for Hopper-v5) and environment Walker2d-v5"),
        ("eval base --env Walker2d-v5", "policy (made for Hopper-v5) and environment Walker2d-v5"),
        ("pretrain hopper --out run", "--data is missing"),
        ("pretrain hopper --data hopper.npz", "--out is missing"),
        ("finetune hopper --out run", "--policy is missing: dppo starts from a policy"),
        ("finetune hopper --algo fql --out run", "--policy is missing: fql starts from a policy, or from --data"),
        ("finetune hopper --policy base --data hopper.npz --out run", "dppo learns from its own experience alone"),
        (
            "finetune hopper --algo dql --policy base --offline-steps 5 --out run",
            "--offline-steps learns from recorded",
        ),
        ("finetune hopper --algo dql --policy base --data hopper.npz --out run", "the data have no rewards"),
        ("finetune hopper --policy base --out run --budget.iterations 0", "there is nothing to do"),
        ("finetune hopper --algo dsrl-sac --policy base --data hopper.npz --out run", "leave --data out"),
        ("finetune hopper --algo ofql --policy base --out run", "needs a policy trained to act in one step"),
        ("finetune hopper --algo sac --policy base --out run --budget.iterations 0", "there is nothing to do"),
        ("finetune hopper --algo sac --policy base --out run --budget.iterations 1 --algo.warmup 9999", "warmup 9999"),
        ("finetune hopper --algo sac --policy base --out run --algo.utd 0", "utd must be positive, got 0"),
        ("finetune hopper --algo sac --policy base --out run --algo.replay 0", "replay must be at least 1, got 0"),
        ("finetune hopper --algo sac --policy base --out run --algo.demo-share 2", "demo_share 2 must lie between"),
        ("finetune hopper --algo sac --policy base --out run --algo.utd nan", "utd must be positive, got nan"),
        ("finetune hopper --algo sac --policy base --out run --algo.utd 1e-9", "utd 1e-09 makes no gradient step"),
        ("finetune hopper --algo sac --policy base --out run --algo.reward-scale 0", "reward_scale must be positive"),
        ("finetune hopper --algo sac --policy base --out run --algo.tau 5", "tau 5 must lie between 0 and 1"),
        (
            "finetune hopper --algo sac --policy base --out run --algo.actor-lr -1",
            "actor_lr must be at least 0, got -1",
        ),
        ("finetune hopper --algo dql --policy base --out run --algo.gamma 2", "gamma 2 must lie between 0 and 1"),
        ("finetune hopper --algo dql --policy base --out run --algo.lr nan", "lr must be at least 0, got nan"),
        (
            "finetune hopper --algo dql --policy base --out run --algo.max-grad-norm -3",
            "max_grad_norm must be positive",
        ),
        ("finetune hopper --algo dql --policy base --out run --algo.critic.hidden 0", "widths must be at least 1"),
        ("finetune hopper --algo fql --policy base --out run --algo.alpha -1", "alpha must be at least 0, got -1"),
        (
            "finetune hopper --algo fql --policy base --out run --algo.act-after 999999999",
            "act_after 999999999 takes all of the run's",
        ),
        ("finetune hopper --algo resip --policy base --out run --algo.gamma 2", "gamma 2 must lie between 0 and 1"),
        (
            "finetune hopper --algo dsrl-na --data hopper.npz --out run",
            "--policy is missing: dsrl-na never trains its base",
        ),
        ("finetune hopper --algo dsrl-sac --policy base --out run --algo.base-steps 0", "sampler steps 0 must lie"),
        (
            "finetune hopper --algo dsrl-na --policy base --out run --algo.distill-clip -1",
            "distill_clip must be positive",
        ),
        (
            "finetune hopper --algo dsrl-sac --policy base --out run --algo.space.bound inf",
            "positive and finite, got inf",
        ),
        ("finetune hopper --policy base --out run --budget.wall-s inf", "wall_s must be finite"),
        ("finetune hopper --policy base --out run --budget.wall-s nan", "wall_s must be at least 0, got nan"),
        ("bakeoff hopper --policy base --out run --budget env_steps=inf", "must be env_steps=N or wall=SECONDS"),
        ("bakeoff hopper --policy base --out run --budget wall=nan", "must be env_steps=N or wall=SECONDS"),
        ("bakeoff hopper --policy base --out base --algos dppo", "base is a run, a bake-off is a folder of runs"),
        ("finetune hopper --algo dsrl-sac --policy base --out run --algo.space.bound 0", "bound"),
        (
            "pretrain hopper --data hopper.npz --out run --kind flaw",
            "unknown kind of policy 'flaw': did you mean 'flow'?",
        ),
        ("bakeoff hopper --policy base --out run --algos dppo,sak", "unknown algorithm 'sak': did you mean 'sac'?"),
        ("bakeoff hopper --policy base --out run --budget day=1", "must be env_steps=N or wall=SECONDS"),
        ("bakeoff hopper --policy absent --out run", "absent is not a policy"),
        ("finetune hopper --policy base", "--out is missing"),
        ("distill hopper --policy base", "--out is missing"),
        ("pretrain hopper --data absent --out run", "no dataset at absent: check the path"),
        ("eval absent", "absent is not a policy"),
        ("export absent --out x.onnx", "absent is not a policy"),
        ("report absent", "absent is no run folder"),
        ("compare absent base", "absent does not exist"),
        ("pretrain hopper --data hopper.npz --out base", "base exists: give another --out"),
        ("finetune hopper --policy base --out base TUNE", "base exists: give another --out"),
        (
            "pretrain hopper --data hopper.npz --out run --policy.horizon 2",
            "horizon 2 is shorter than n_action_steps",
        ),
        ("finetune hopper --policy base --out run --algo.finetune-steps 9", "finetune_steps 9 must lie between 1 and"),
        ("pretrain hopper --data hopper.npz --out run --policy.predicts velocity", "has no velocity"),
        ("pretrain hopper --data hopper.npz --out run --policy.network.hidden 16 16", "odd number of equal hidden"),
        ("pretrain hopper --data hopper.npz --out run --held-out 1.5", "held-out fraction of 1.5"),
        ("pretrain hopper --data hopper.npz --out run --bc.batch 0", "batch must be at least 1, got 0"),
        ("pretrain hopper --data hopper.npz --out run --log-every 0", "log_every must be at least 1, got 0"),
        ("pretrain hopper --data hopper.npz --out run --seed -1", "seed must be at least 0, got -1"),
        ("finetune hopper --policy base --out run --budget.num-envs 0", "num_envs must be at least 1, got 0"),
        ("finetune hopper --policy base --out run --algo.minibatch 1", "minibatch must be at least 2, got 1"),
        ("finetune hopper --policy base --out run --seeds two", "--seeds two must be a number of runs"),
        ("finetune hopper --policy base --out run --seeds", "--seeds needs a value"),
        ("finetune hopper --policy base --out run --env-kwargs {", "'{' is not a JSON object"),
        ("finetune hopper --policy base --out run --env-kwargs [1]", "'[1]' is not a JSON object"),
        ('finetune hopper --policy base --out run TUNE --env-kwargs {"gravity":1}', "unknown keyword of Hopper-v5"),
        ("run policy.onnx --env Hopper-v5 --env-kwargs {", "'{' is not a JSON object"),
        ("run policy.onnx --env Hoper-v5", "did you mean 'Hopper-v5'?"),
        ("run policy.onnx --env Walker2d-v5", "policy (made for Hopper-v5) sees {'state': (11,)}"),
        ("run policy.onnx --env Hopper-v5 --hz 0", "the control rate is 0 Hz"),
        ("run absent.onnx --env Hopper-v5", "cannot read absent.onnx"),
        ("run hopper.npz --env Hopper-v5", "hopper.npz was not written by `noisepilot export`"),
        ("export base --out policy.txt", "the path must end in .onnx or .npz"),
        ("data collect --env Hopper-v5 --actor waypoint --out x", "Hopper-v5 is no PointMaze"),
        ("eval base --episodes 0", "episodes must be at least 1, got 0"),
    ],
)
def test_commands(refused, command, words):
    argv = [part for word in command.split() for part in (DPPO if word == "TUNE" else [word])]
    assert words in refused(*argv)


@pytest.mark.parametrize(
    "command", ["pretrain hopper", "finetune hopper --algo dql --offline-steps 5", "distill hopper --policy base"]
)
def test_data_of_another_environment(refused, command):
    episodes = load("hopper.npz")
    replace(episodes, attrs={**episodes.attrs, "env": "Hop-v3"}).write("hop")
    assert "recorded in Hop-v3, not in Hopper-v5: say --env Hop-v3, or" in refused(
        *command.split(), "--data", "hop", "--out", "run"
    )


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--bc.batchh", "3", "--bc.batch"),
        ("--bc.batch", "many", "--bc.batch"),
        ("--policy.predicts", "epsilon", "eps"),
        ("--policy.network.activation", "rellu", "relu"),
    ],
)
def test_wrong_options_are_explained(made, tmp_path, capsys, option, value, words):
    argv = ["pretrain", "hopper", "--data", str(made / "hopper.npz"), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        main([*argv, option, value])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert option in said
    assert words in said
    assert not (tmp_path / "run").exists()


def test_a_damaged_exported_file(refused):
    Path("policy.onnx").write_bytes(Path("policy.onnx").read_bytes()[:1000])
    assert "policy.onnx is not a readable ONNX file" in refused("run", "policy.onnx", "--env", "Hopper-v5")


def test_an_exported_file_refuses_what_it_cannot_see(made):
    policy = Policy.load(made / "policy.onnx")
    nan = np.zeros((1, 11))
    nan[0, 4] = np.nan
    for obs, words in (
        ({"state": np.zeros((1, 12))}, r"has shape \(1, 12\), expected \(1, 11\)"),
        ({"state": nan}, r"'state' is not finite: nan at \(0, 4\)"),
        ({}, "'state' is missing"),
        ({"state": "words"}, "is not an array of numbers"),
    ):
        with pytest.raises(PolicyError, match=words):
            policy.act(obs)
