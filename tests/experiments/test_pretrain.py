"""Pre-training on made-up demonstrations: what is learned, what is written, what is refused late."""

import numpy as np
import pytest
import torch

from noisepilot.datasets.readers import load
from noisepilot.experiments.cli import main
from noisepilot.experiments.env_ref import EnvRef
from noisepilot.experiments.pretrain import build_policy
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies import PolicyConfig, UNet, load_policy
from noisepilot.policies.storage import find_policy

from .runs import BC, POLICY, PRETRAIN, metrics, pretrained, write_data


def acts(policy, count=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, policy.spec.n_obs_steps, *policy.spec.obs["state"].shape)
    return policy.act({"state": torch.rand(shape, generator=generator)}, generator=generator)


def test_what_a_run_holds(tmp_path):
    run = RunFolder(pretrained(tmp_path))
    assert [p.name for p in run.checkpoints()] == [f"{step:09d}" for step in range(4, 25, 4)]
    assert [(run.path / "checkpoints" / p.name / "training_state").exists() for p in run.checkpoints()] == [
        *[False] * 5,
        True,
    ]
    lines = metrics(run.path)
    assert [line["grad_steps"] for line in lines] == [6, 12, 18, 24]
    assert all(line["train/loss"] > 0 and line["eval/loss"] > 0 for line in lines)
    assert run.facts["data_hash"] == load(tmp_path / "hopper.npz").hash()
    spec = load_policy(find_policy(run.path)).spec
    assert (spec.env, spec.control_hz, spec.horizon) == ("Hopper-v5", 125.0, 4)


def test_it_learns_to_repeat_what_every_demonstration_does(tmp_path):
    def always(arrays):
        arrays["actions"][:] = np.sign(arrays["states"][:, :1])  # the action follows from the state

    demos = write_data(tmp_path / "demos.npz", obs=2, action=2, change=always)
    fit = ["--bc.grad-steps", "400", "--bc.lr", "0.01", "--bc.batch", "64"]
    options = [*fit, "--policy.horizon", "1", "--policy.n-action-steps", "1"]
    assert main(["pretrain", "default", "--data", demos, "--out", str(tmp_path / "run"), *POLICY, *options]) == 0
    policy = load_policy(find_policy(tmp_path / "run"))
    obs = torch.tensor([[[1.5, 0.0]], [[-1.5, 0.0]]])
    action = policy.act({"state": obs}, generator=torch.Generator().manual_seed(0))[:, 0]
    assert (action.sign() == torch.tensor([[1.0], [-1.0]])).all()


@pytest.mark.parametrize(("kind", "step_size"), [("diffusion", False), ("shortcut", True)])
def test_the_network_is_chosen_by_name(tmp_path, kind, step_size):
    demos = write_data(tmp_path / "demos.npz")
    chosen = ["--kind", kind, "--policy.network", "unet", "--policy.network.down-dims", "8", "16"]
    options = ["--policy.network.time-dim", "8", "--policy.sampler.steps", "2", *BC]
    assert main(["pretrain", "default", "--data", demos, "--out", str(tmp_path / "run"), *chosen, *options]) == 0
    policy = load_policy(find_policy(tmp_path / "run"))
    assert policy.config.network == UNet((8, 16), time_dim=8, step_size=step_size)
    assert acts(policy).isfinite().all()


def test_constant_dimensions_come_back_as_they_were(tmp_path):
    def freeze(arrays):
        arrays["states"][:, 3] = 0.25
        arrays["actions"][:, 1] = 0.5

    policy = load_policy(find_policy(pretrained(tmp_path, change=freeze)))
    action = acts(policy)
    assert action.isfinite().all()
    assert (action[..., 1] == 0.5).all()


@pytest.mark.parametrize("lengths", [(1,) * 20, (1, 9, 1, 9), (30, 2)])
def test_short_episodes(tmp_path, lengths):
    folder = pretrained(tmp_path, "default", "--policy.n-obs-steps", "3", lengths=lengths)
    assert acts(load_policy(find_policy(folder))).isfinite().all()


def test_past_actions_are_learned_and_left_out(tmp_path):
    folder = pretrained(tmp_path, "hopper", "--policy.past-actions", "1", "--policy.n-obs-steps", "2")
    policy = load_policy(find_policy(folder))
    assert policy.noise_shape[1] == 5
    assert acts(policy).shape == (3, 4, 3)


def test_one_episode_without_a_held_out_part(tmp_path):
    folder = pretrained(tmp_path, "hopper", "--held-out", "0", lengths=(40,))
    assert all(line["eval/loss"] is None for line in metrics(folder))


def test_a_loss_that_explodes_stops_the_run(tmp_path, capsys):
    demos, out = write_data(tmp_path / "demos.npz"), str(tmp_path / "run")
    assert main(["pretrain", "hopper", "--data", demos, "--out", out, *PRETRAIN, "--bc.lr", "1e30"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the loss is not finite: lower --bc.lr")


def test_the_policy_sees_what_the_environment_names(tmp_path):
    episodes = load(write_data(tmp_path / "demos.npz"))
    alone = build_policy(PolicyConfig(), episodes, EnvRef())
    with_env = build_policy(PolicyConfig(), episodes, EnvRef("Hopper-v5"))
    assert alone.spec.env == ""
    assert with_env.spec.action.high == (1.0, 1.0, 1.0)
    assert torch.equal(alone.normalizer.get_buffer("half_state"), with_env.normalizer.get_buffer("half_state"))
