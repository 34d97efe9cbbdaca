"""`noisepilot import` of files that hold all that a policy needs: recognised, said, written, or refused in one line."""

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.experiments.cli import main
from noisepilot.policies import PolicyConfig, load_policy
from noisepilot.policies.foreign.imported import spec_of
from noisepilot.policies.storage import read_config
from noisepilot.spec import ArraySpec, EnvSpec

from ..policies.foreign.files import DDPM, official, unet_settings, workspace
from ..policies.foreign.test_lerobot import low_dimensional
from ..policies.parity import Fixture


def test_a_checkpoint_of_diffusion_policy(shared_data, tmp_path, monkeypatch, capsys):
    f, out = Fixture(shared_data, "dp_unet_global"), tmp_path / "policy"
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", unet_settings(f), official(f), 10, 2)
    assert main(["import", "--weights", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Diffusion Policy, DiffusionUnetLowdimPolicy: weights of ema_model, their normaliser inside",
        "read off cfg: DDPM, 100 denoising steps, predicts eps, n_obs_steps 2, n_action_steps 8",
        "its horizon of 16: past_actions 1, then horizon 15 from the current action on",
        "left out: state_dicts/model (156 tensors)",
        "left out: state_dicts/optimizer (1 tensors)",
        "sees state (10,); acts (2,); of no environment",
        f"policy: {out}",
    ]
    assert read_config(out)["provenance"] == {"source": "Diffusion Policy, latest.ckpt, ema_model"}
    policy = load_policy(out, "cpu")
    assert (policy.network.out.weight.detach().numpy() == f.arrays["w.net.final_conv.1.weight"]).all()


def test_a_folder_of_lerobot(shared_data, tmp_path, capsys):
    folder = low_dimensional(Fixture(shared_data, "lerobot_unet_film"), tmp_path / "pretrained_model", gizmo=1)
    for weights in (folder, folder / "model.safetensors"):
        assert main(["import", "--weights", str(weights), "--out", str(tmp_path / "policy")]) == 0
        said = capsys.readouterr().out
        assert "normalised by VISUAL MEAN_STD, STATE MIN_MAX, ENV MIN_MAX, ACTION MIN_MAX" in said
        assert "settings left out: device, gizmo" in said
        assert "sees state (4,), environment_state (6,); acts (2,); of no environment" in said
    action = load_policy(tmp_path / "policy", "cpu").act(
        {"state": torch.zeros(1, 2, 4), "environment_state": torch.zeros(1, 2, 6)}
    )
    assert action.shape == (1, 15, 2)
    assert main(["import", "--weights", str(tmp_path / "policy"), "--out", str(tmp_path / "other")]) == 2
    assert "is a policy of noisepilot already" in capsys.readouterr().err


def test_ddim_that_clips_says_how_it_differs(shared_data, tmp_path, monkeypatch, capsys):
    f = Fixture(shared_data, "dp_unet_global")
    ddim = DDPM | {"_target_": "diffusers.schedulers.scheduling_ddim.DDIMScheduler", "set_alpha_to_one": True}
    settings = unet_settings(f, noise_scheduler=ddim, num_inference_steps=8)
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", settings, official(f), 10, 2)
    assert main(["import", "--weights", str(path), "--out", str(tmp_path / "policy")]) == 0
    assert "differs: where DDIM clips" in capsys.readouterr().out
    sampler = load_policy(tmp_path / "policy", "cpu").config.sampler
    assert (sampler.steps, sampler.eta) == (8, 0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_target_": "diffusion_policy.policy.x.DiffusionUnetHybridImagePolicy"}, "holds a DiffusionUnetHybridImage"),
        ({"obs_as_global_cond": False}, "observations inside of the chunk are not imported"),
        ({"n_obs_steps": "${eval:'1+1'}"}, "does not say n_obs_steps in its configuration, but \"${eval:'1+1'}\""),
        ({"n_obs_steps": 3}, "the weights do not fit the network: 'down.0.first.film.1.weight'"),
        ({"num_inference_steps": 101}, "sampler steps 101 must lie between 1 and the path's levels 100"),
        ({"n_action_steps": 16}, "executes actions 1 to 17 of a horizon of 16"),
        ({"noise_scheduler": DDPM | {"beta_schedule": "linear"}}, "beta_schedule 'linear'"),
        ({"noise_scheduler": None}, "does not say num_inference_steps"),
    ],
)
def test_what_does_not_fit_is_refused(shared_data, tmp_path, monkeypatch, capsys, changes, words):
    f, out = Fixture(shared_data, "dp_unet_global"), tmp_path / "policy"
    settings = unet_settings(f, **{"num_inference_steps": None, **changes})
    path, _ = workspace(monkeypatch, tmp_path / "latest.ckpt", settings, official(f), 10, 2)
    assert main(["import", "--weights", str(path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith(f"error: {path}")
    assert error.count("\n") == 1
    assert not out.exists()


def environment(**obs: int) -> EnvSpec:
    arrays = {name: ArraySpec((dim,), unit="m") for name, dim in obs.items()}
    return EnvSpec("Somewhere-v0", arrays, ArraySpec((2,), low=(-1.0, -1.0)), 10.0, 100)


def test_observations_get_the_environments_names():
    obs, action = {"state": ArraySpec((4,)), "environment_state": ArraySpec((6,))}, ArraySpec((2,))
    spec, names = spec_of(PolicyConfig(), obs, action, environment(environment_state=6, agent=4))
    assert names == {"state": "agent", "environment_state": "environment_state"}
    assert list(spec.obs) == ["agent", "environment_state"]
    assert (spec.env, spec.control_hz, spec.obs["agent"].unit, spec.action.low) == ("Somewhere-v0", 10.0, "m", (-1, -1))
    for other in (environment(agent=4), environment(a=4, b=4, environment_state=6), environment(state=5, goal=6)):
        with pytest.raises(UserError, match="policy and environment Somewhere-v0 differ in observations"):
            spec_of(PolicyConfig(), obs, action, other)


def test_options_of_other_layouts_are_no_options(shared_data, tmp_path, capsys):
    folder = low_dimensional(Fixture(shared_data, "lerobot_unet_film"), tmp_path / "policy")
    with pytest.raises(SystemExit):
        main(["import", "--weights", str(folder), "--out", str(tmp_path / "o"), "--normalization", "n.npz"])
    assert "--normalization" in capsys.readouterr().err
    assert main(["import", "--weights", str(folder)]) == 2
    assert "--out is missing" in capsys.readouterr().err
    np.savez(tmp_path / "arrays.npz", x=np.zeros(1))
    assert main(["import", "hopper", "--weights", str(tmp_path / "arrays.npz"), "--out", "o"]) == 2
    assert "has no weights named" in capsys.readouterr().err
