"""LeRobot's folders: networks number by number, and observations in their order of times."""

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies import UNet
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.foreign.imported import columns_by_time
from noisepilot.policies.foreign.layouts import recognise
from noisepilot.policies.foreign.lerobot_stats import Stats
from noisepilot.policies.foreign.unet import load_official_unet
from noisepilot.policies.foreign.vision import rgb_encoder_weights
from noisepilot.policies.vision import ResNet
from noisepilot.policies.vision.augment import centre_crop
from noisepilot.policies.vision.rgb import ColourNetwork

from ..parity import Fixture
from ..test_parity_dppo import close
from .files import lerobot_config, lerobot_folder, official

STATE, ENV, ACTION = "observation.state", "observation.environment_state", "action"
TOP, WRIST = "observation.images.top", "observation.images.wrist"


def unit(dim: int) -> dict[str, list[float]]:
    """Statistics under which numbers stay."""
    return {"min": [-1.0] * dim, "max": [1.0] * dim}


def load(folder):
    found = recognise(folder)
    assert found is not None
    return found.load(None)


def unet_weights(f: Fixture) -> dict[str, torch.Tensor]:
    return {f"diffusion.unet.{k}": v for k, v in official(f).items()}


def low_dimensional(f: Fixture, folder, *, beside=False, **changes):
    """Two times of a state of four numbers and an environment's of six, which the fixture's network takes."""
    features = {ENV: ("ENV", [6]), STATE: ("STATE", [4])}
    stats = {STATE: unit(4), ENV: unit(6), ACTION: unit(2)}
    return lerobot_folder(folder, lerobot_config(f, features, **changes), unet_weights(f), stats, beside=beside)


def test_columns_by_time():
    columns = columns_by_time([("a", 1), ("b", 2), ("c", 1)], [("b", 2), ("c", 1), ("a", 1)], 2)
    # Ours: b0 b0 b1 b1 c0 c1 a0 a1; theirs: a0 b0 b0 c0 a1 b1 b1 c1.
    assert columns.tolist() == [6, 0, 1, 4, 7, 2, 3, 5]


@pytest.mark.parametrize("beside", [False, True])
def test_low_dimensional(shared_data, tmp_path, beside):
    """From observations to the network's output, which is the official one."""
    f = Fixture(shared_data, "lerobot_unet_film")
    imported = load(low_dimensional(f, tmp_path / "pretrained_model", beside=beside))
    policy = imported.policy.double()
    assert (policy.spec.horizon, policy.spec.n_action_steps, policy.config.past_actions) == (15, 8, 1)
    assert policy.config.network == UNet(f.set("down_dims"), 5, 8, time_dim=32)
    assert {k: v.shape for k, v in policy.spec.obs.items()} == {"state": (4,), "environment_state": (6,)}
    seen = f.tensor("global_cond").unflatten(1, (2, 10))
    context = policy.encode({"state": seen[..., :4], "environment_state": seen[..., 4:]})
    x, t = f.tensor("x"), 1 - (f.tensor("t").double() + 1) / 100
    output = policy.predict(context, x.roll(-1, 1), t).roll(1, 1)
    close(output.detach(), f.tensor("out64.eps"), 1e-10)
    assert not imported.left


def with_cameras(f: Fixture, rgb: Fixture, folder, *, cameras=(TOP, WRIST), separate=False, colours=None, **changes):
    """Two times of a state of four numbers and 16 features per camera: columns that the fixture lacks are drawn."""
    g = torch.Generator().manual_seed(0)
    weights = official(f)
    wide = 2 * (4 + 16 * len(cameras)) - f.set("global_cond_dim")
    for name in [name for name in weights if name.endswith("cond_encoder.1.weight")]:
        more = torch.randn(len(weights[name]), wide, generator=g) / 8
        weights[name] = torch.cat([weights[name], more], 1)
    parts = [f"{i}." for i in range(len(cameras))] if separate else [""]
    encoders = [{k: v * (1 + 0.1 * i) for k, v in official(rgb).items()} for i in range(len(parts))]
    tensors = {f"diffusion.unet.{k}": v for k, v in weights.items()}
    for part, encoder in zip(parts, encoders, strict=True):
        tensors |= {f"diffusion.rgb_encoder.{part}{k}": v for k, v in encoder.items()}
    shown = colours or {"mean": [[[0.4]], [[0.5]], [[0.3]]], "std": [[[0.2]], [[0.25]], [[0.3]]]}
    stats = {STATE: unit(4), ACTION: {"min": [0.0, -3.0], "max": [5.0, 1.0]}} | dict.fromkeys(cameras, shown)
    features = {STATE: ("STATE", [4])} | {camera: ("VISUAL", [3, 96, 96]) for camera in cameras}
    config = lerobot_config(f, features, use_separate_rgb_encoder_per_camera=separate, **changes)
    return lerobot_folder(folder, config, tensors, stats), weights, encoders, shown


@pytest.mark.parametrize("separate", [False, True])
def test_with_cameras(shared_data, tmp_path, separate):
    """Pictures to the network's output as LeRobot makes it: time by time, the state before the cameras."""
    f, rgb = Fixture(shared_data, "lerobot_unet_film"), Fixture(shared_data, "lerobot_rgb_encoder_slim")
    folder, weights, encoders, shown = with_cameras(f, rgb, tmp_path / "policy", separate=separate)
    policy = load(folder).policy.double()
    assert isinstance(policy.config.encoder, ResNet)
    assert (policy.config.encoder.width, policy.config.encoder.crop) == (16, (84, 84))
    assert list(policy.spec.obs) == ["images.top", "images.wrist", "state"]
    g = torch.Generator().manual_seed(1)
    names = ("images.top", "images.wrist")
    obs = {name: torch.randint(256, (3, 2, 96, 96, 3), generator=g, dtype=torch.uint8) for name in names}
    obs["state"] = torch.rand(3, 2, 4, generator=g, dtype=torch.float64)

    mean, std = (torch.tensor(shown[k], dtype=torch.float64) for k in ("mean", "std"))
    features = [obs["state"]]
    for i, name in enumerate(names):
        network = ColourNetwork(ResNet(16, 8), (84, 84)).double()
        network.load_state_dict(rgb_encoder_weights(encoders[i if separate else 0]))
        pictures = (obs[name].flatten(0, 1).movedim(-1, 1).double() / 255 - mean) / (std + 1e-8)
        features.append(network(centre_crop(pictures, (84, 84))).unflatten(0, (3, 2)))
    reference = policy.config.network.build(Sizes((36,), 2, 16, 2)).double()
    load_official_unet(reference, weights, "lerobot")
    x, t = f.tensor("x"), f.tensor("t").double()
    seen = reference.condition(torch.cat(features, 2).flatten(1))
    wanted = reference(x, reference.time_embedding(t), seen)

    given = policy.predict(policy.encode(obs), x.roll(-1, 1), 1 - (t + 1) / 100).roll(1, 1)
    close(given.detach(), wanted.detach(), 1e-6)  # colours' mean and deviation are kept in float32
    low = policy.normalizer.denormalize("action", -torch.ones(2, dtype=torch.float64))
    assert low.tolist() == [0.0, -3.0]


def test_batch_normalisation_is_folded(shared_data, tmp_path):
    f, rgb = Fixture(shared_data, "lerobot_unet_film"), Fixture(shared_data, "lerobot_rgb_encoder_slim")
    weights = official(rgb)
    norms = [k.removesuffix("bias") for k, v in weights.items() if k.startswith("backbone.") and k.endswith(".bias")]
    for norm in norms:
        weights |= {
            f"{norm}running_{s}": torch.full_like(weights[f"{norm}bias"], v) for s, v in (("mean", 0.1), ("var", 4.0))
        }
    named = rgb_encoder_weights(weights)
    network = ColourNetwork(ResNet(16, 8, norm="folded"), (84, 84))
    network.load_state_dict(named)
    gain, shift = weights["backbone.1.weight"], weights["backbone.1.bias"]
    scale = gain / (4.0 + 1e-5) ** 0.5
    close(named["backbone.stem.conv.weight"], weights["backbone.0.weight"] * scale[:, None, None, None], 1e-6)
    close(named["backbone.stem.conv.bias"], shift - 0.1 * scale, 1e-6)
    assert f.set("Da") == 2


@pytest.mark.parametrize(
    ("mode", "given", "seen"),
    [
        ("MIN_MAX", {"min": [0.0, 3.0], "max": [4.0, 3.0]}, [[-1.0, -1.0], [1.0, -1.0]]),
        ("QUANTILES", {"q01": [0.0, 3.0], "q99": [4.0, 3.0]}, [[-1.0, -1.0], [1.0, -1.0]]),
        ("MEAN_STD", {"mean": [0.0, 3.0], "std": [2.0, 1.0]}, [[0.0, 0.0], [2.0, 0.0]]),
        ("IDENTITY", {}, [[0.0, 3.0], [4.0, 3.0]]),
    ],
)
def test_modes_of_normalisation(mode, given, seen):
    """Of a number that moves between 0 and 4, and one that is always 3."""
    stats = Stats({"STATE": mode, "ACTION": mode}, {STATE: {k: np.array(v) for k, v in given.items()}})
    center, half = stats.scale(STATE, "STATE")
    x = np.array([[0.0, 3.0], [4.0, 3.0]])
    np.testing.assert_allclose((x - center) / half, seen, atol=1e-7)
    center, half = stats.scale(STATE, "ACTION", output=True)
    np.testing.assert_allclose(center + np.array(seen) * half, x, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beta_schedule": "linear"}, "beta_schedule 'linear', which has no equal here"),
        ({"prediction_type": "v_prediction"}, "prediction_type 'v_prediction'"),
        ({"noise_scheduler_type": "EDM"}, "walks by a EDM scheduler"),
        ({"n_action_steps": 16}, "executes 16 actions of a horizon of 16 that begins 1 ago"),
        ({"normalization_mapping": {"STATE": "LOG"}}, "normalises STATE by LOG"),
        ({"normalization_mapping": {"STATE": "QUANTILES"}}, "has no q01 and q99 of 'observation.state'"),
        ({"output_features": {}}, r"puts out \[\], not one action"),
        ({"n_obs_steps": 1}, "'down.0.first.film.1.weight' is"),
        ({"horizon": "long"}, "does not describe a policy"),
    ],
)
def test_what_has_no_equal_is_refused(shared_data, tmp_path, changes, words):
    f = Fixture(shared_data, "lerobot_unet_film")
    found = recognise(low_dimensional(f, tmp_path / "policy", **changes))
    with pytest.raises(UserError, match=rf"^[^\n]*{words}[^\n]*$"):  # one line
        found.load(None)


def test_cameras_that_have_no_equal_are_refused(shared_data, tmp_path):
    f, rgb = Fixture(shared_data, "lerobot_unet_film"), Fixture(shared_data, "lerobot_rgb_encoder_slim")
    for changes in ({"vision_backbone": "resnet34"}, {"resize_shape": [64, 64]}):
        folder, *_ = with_cameras(f, rgb, tmp_path / "policy", cameras=(TOP,), **changes)
        with pytest.raises(UserError, match="resnet18 without resizing is imported"):
            recognise(folder).load(None)


def test_a_step_that_changes_numbers_is_refused(shared_data, tmp_path):
    folder = low_dimensional(Fixture(shared_data, "lerobot_unet_film"), tmp_path / "policy", beside=True)
    (folder / "policy_postprocessor.json").write_text('{"steps": [{"registry_name": "absolute_actions_processor"}]}')
    with pytest.raises(UserError, match="step 'absolute_actions_processor' , which has no equal"):
        recognise(folder).load(None)
