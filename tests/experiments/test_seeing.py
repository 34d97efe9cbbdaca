"""Policies that see, as a user trains and plays them; and what a user gives wrongly, answered before training."""

import json
from pathlib import Path
from shlex import split

import numpy as np
import pytest
import torch

from noisepilot.deploy.runtime import Policy as Exported
from noisepilot.deploy.runtime import PolicyError
from noisepilot.experiments.cli import main
from noisepilot.policies import load_policy
from noisepilot.policies.storage import find_policy
from noisepilot.policies.vision import Jitter, ViT
from noisepilot.policies.vision.resnet import ResNet18
from noisepilot.resize import resized

from .seeing import FACTORY, RESNET, SIZE, TRAIN, VIT, write_demos

FRONT = [*VIT, "--policy.observe", "images.front"]
LIMIT = '"max_episode_steps": 6'


def train(*options):
    return main(["pretrain", "default", *TRAIN, *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the set `demos` and the run `base`, whose ViT sees the front camera and the state."""
    folder = tmp_path_factory.mktemp("made")
    demos = write_demos(folder / "demos")
    seen = split("--policy.observe state images.front --policy.encoder.jitter.hue 0.05")
    assert train("--data", demos, "--out", str(folder / "base"), *VIT, *seen) == 0
    return folder


@pytest.fixture
def refused(made, tmp_path, monkeypatch, capsys):
    """A function that runs a command beside `made`'s files and returns its one line of error."""
    monkeypatch.chdir(tmp_path)
    for name in ("demos", "base"):
        Path(name).symlink_to(made / name)

    def run(*argv: str) -> str:
        before = sorted(Path().rglob("*"))
        capsys.readouterr()
        assert main(list(argv)) == 2
        assert sorted(Path().rglob("*")) == before
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


def test_the_encoder_is_chosen_by_name_and_sees_what_is_named(made):
    policy = load_policy(find_policy(made / "base"))
    assert policy.config.encoder == ViT(width=8, heads=2, features=8, jitter=Jitter(hue=0.05))
    assert sorted(policy.spec.obs) == ["images.front", "state"]
    assert policy.feature_dim == 8 + 2


def test_a_policy_acts_where_there_is_more_to_see(made, capsys):
    kwargs = f"{{{LIMIT}}}"
    argv = ["eval", str(made / "base"), "--env", FACTORY, "--env-kwargs", kwargs, "--episodes", "2", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    assert main(["eval", str(made / "base"), "--data", str(made / "demos"), "--json"]) == 0


def test_a_fresh_policy_sees_and_learns_from_recorded_and_own_experience(made, tmp_path):
    fresh = [word.replace("--policy.", "--fresh.") for word in [*VIT, *TRAIN] if not word.startswith("--bc")]
    fresh = fresh[: fresh.index("4", fresh.index("--fresh.sampler.steps")) + 1]
    chunks = split("--fresh.horizon 2 --fresh.n-action-steps 2 --fresh.observe images.wrist state")
    small = split("--algo.critic.hidden 8 8 --algo.batch 8 --algo.warmup 2 --algo.act-after 0 --offline-steps 2")
    budget = split("--budget.num-envs 2 --budget.decisions 4 --budget.iterations 1 --budget.eval-episodes 1")
    env = ["--env", FACTORY, "--env-kwargs", f"{{{LIMIT}}}"]
    argv = ["finetune", "default", "--algo", "dql", "--data", str(made / "demos"), "--out", str(tmp_path / "run")]
    assert main([*argv, *env, *fresh, *chunks, *small, *budget]) == 0
    assert sorted(load_policy(find_policy(tmp_path / "run")).spec.obs) == ["images.wrist", "state"]


@pytest.mark.parametrize("separate", [False, True])
def test_a_resnet_begins_with_weights_of_a_file_that_is_not_needed_again(made, tmp_path, separate):
    torch.manual_seed(5)
    file, backbone = tmp_path / "resnet18.npz", ResNet18(16)
    np.savez(file, **{_theirs(name): value.detach().numpy() for name, value in backbone.state_dict().items()})
    argv = ["--data", str(made / "demos"), "--out", str(tmp_path / "run"), *RESNET, "--encoder-weights", str(file)]
    argv += ["--bc.lr", "0", "--bc.lr-final", "0", *(["--policy.encoder.separate"] if separate else [])]
    assert train(*argv) == 0
    file.unlink()
    encoder = load_policy(find_policy(tmp_path / "run")).network.encoder
    assert len(encoder.backbones) == 1 + separate
    for ours in encoder.backbones:
        assert all(torch.equal(ours.state_dict()[name], value) for name, value in backbone.state_dict().items())
    assert train(*argv, "--resume", "--bc.grad-steps", "4") == 0


def _theirs(name):
    """Torchvision's name of a parameter."""
    for ours, theirs in (
        ("stem.conv", "conv1"), ("stem.norm", "bn1"), *((f"stages.{i}", f"layer{i + 1}") for i in range(4)),
        ("first.conv", "conv1"), ("first.norm", "bn1"), ("second.conv", "conv2"), ("second.norm", "bn2"),
        ("skip.conv", "downsample.0"), ("skip.norm", "downsample.1"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "'images.front' is a picture: choose an encoder (policy.encoder, resnet or vit), or leave it out"),
        ("VIT --policy.observe state", "needs a camera, but no picture is observed: set policy.encoder to none"),
        ("--policy.encoder vitt", "unknown encoder 'vitt': did you mean 'vit'?"),
        ("VIT --policy.observe state images.fron", "unknown observation 'images.fron': did you mean 'images.front'?"),
        ("--policy.observe", "policy.observe names nothing, so nothing would be seen"),
        ("RESNET --policy.encoder.crop 50 40", "crop (50, 40) is larger than camera 'images.front', (40, 48)"),
        ("RESNET --policy.encoder.width 24", "width 24 must be a multiple of 16"),
        ("VIT --policy.encoder.jitter.hue 2", "hue 2 must lie between 0 and 1"),
        ("VIT --policy.network transformer --policy.n-obs-steps 2", "observations time by time"),
        ("VIT --encoder-weights absent.pth", "--encoder-weights fills a ResNet-18, this policy has none"),
        ("RESNET --encoder-weights absent.pth", "absent.pth does not exist: give a file of ResNet-18 weights"),
    ],
)
def test_settings_that_do_not_fit_are_refused(refused, options, words):
    parts = options.replace("VIT", " ".join(VIT)).replace("RESNET", " ".join(RESNET)).split()
    size = [] if "--policy.network" in parts else TRAIN
    assert words in refused("pretrain", "default", "--data", "demos", "--out", "run", *size, *parts)


def changed(name, fn):
    def change(data):
        data["observation." + name] = fn(data["observation." + name])

    return change


@pytest.mark.parametrize(
    ("encoder", "change", "words"),
    [
        (VIT, changed("images.front", lambda x: x.transpose(0, 3, 1, 2)), "write them as (40, 48, 3)"),
        (VIT, changed("images.front", lambda x: (x / 255).astype(np.float32)), "type float32, but pictures are uint8"),
        (VIT, changed("images.wrist", lambda x: x[:, :20]), "differ in size and share one network"),
        (RESNET, changed("images.wrist", lambda x: x[..., :1]), "has 1 channels, the ResNet 3"),
        (FRONT, changed("images.front", lambda x: x[:, :12]), "at least 16 pixels"),
    ],
)
def test_pictures_that_cannot_be_learned_from_are_refused(refused, encoder, change, words):
    write_demos("odd", change)
    assert words in refused("pretrain", "default", "--data", "odd", "--out", "run", *TRAIN, *encoder)
    if "write" in words or "type" in words:
        assert main(["data", "check", "odd"]) == 1


def test_a_policy_and_pictures_of_another_size(refused):
    words = "differ in observations: {'state': (2,), 'images.front': (40, 48, 3)} != {"
    larger = ["--env", FACTORY, "--env-kwargs", f'{{{LIMIT}, "height": 60}}']
    assert words in refused("eval", "base", *larger)
    assert words in refused("finetune", "default", "--policy", "base", "--out", "run", *larger)
    without = ["--env", FACTORY, "--env-kwargs", f'{{{LIMIT}, "cameras": ["wrist"]}}']
    assert words in refused("eval", "base", *without)
    write_demos("larger", size=(60, 48))
    assert "camera 'images.front' has shape" in refused("eval", "base", "--data", "larger")
    write_demos("less", lambda data: data.pop("observation.images.front"))
    assert "has no 'observation.images.front', only" in refused("eval", "base", "--data", "less")
    fit = ["--env", FACTORY, "--env-kwargs", f'{{{LIMIT}, "height": 60}}', *TRAIN, *VIT]
    assert "shape (40, 48, 3), but" in refused("pretrain", "default", "--data", "demos", "--out", "run", *fit)


def test_parts_of_a_fresh_policy_beside_one_that_is_given(refused):
    argv = ["finetune", "default", "--policy", "base", "--out", "run", "--fresh.encoder", "vit"]
    assert "--fresh.encoder is for a fresh policy, and --policy brings its own" in refused(*argv)


def test_weights_that_do_not_fit_the_encoder(refused, made):
    Path("base").unlink()
    policy = find_policy(made / "base")
    Path("other").mkdir()
    config = json.loads((policy / "config.json").read_text())
    config["config"]["encoder"]["width"] = 16
    (Path("other") / "config.json").write_text(json.dumps(config))
    (Path("other") / "model.safetensors").write_bytes((policy / "model.safetensors").read_bytes())
    assert "model.safetensors does not fit its config.json" in refused("eval", "other", "--data", "demos")


def test_an_exported_policy_runs_where_there_is_more_to_see(made, tmp_path, capsys):
    out, file = str(tmp_path / "run"), str(tmp_path / "policy.npz")
    assert train("--data", str(made / "demos"), "--out", out, "--policy.observe", "state") == 0
    assert main(["export", out, "--out", file, "--data", str(made / "demos")]) == 0
    capsys.readouterr()
    loop = split("--hz 1000 --episodes 1 --json")
    assert main(["run", file, "--env", FACTORY, "--env-kwargs", f"{{{LIMIT}}}", *loop]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6


@pytest.mark.parametrize("encoder", [VIT, RESNET])
def test_a_policy_that_sees_becomes_one_file_that_takes_bytes(made, tmp_path, capsys, encoder):
    out, file = str(tmp_path / "run"), str(tmp_path / "policy.onnx")
    assert train("--data", str(made / "demos"), "--out", out, *encoder, "--policy.n-obs-steps", "2") == 0
    assert main(["export", out, "--out", file, "--data", str(made / "demos")]) == 0
    policy = Exported.load(file)
    assert policy.metadata["parity"]["source"] == "recorded"
    assert policy.spec.observations["images.front"]["shape"] == (2, *SIZE, 3)
    rng = np.random.default_rng(0)
    obs = {"images.front": rng.integers(0, 256, (2, *SIZE, 3), np.uint8), "images.wrist": np.zeros((2, *SIZE, 3), "u1")}
    obs["state"] = rng.uniform(-1, 1, (2, 2))
    noise = rng.standard_normal(policy.spec.noise_shape)
    inside = load_policy(find_policy(out))
    wanted = inside.act(
        {k: torch.as_tensor(v if v.dtype == np.uint8 else np.float32(v))[None] for k, v in obs.items()},
        torch.as_tensor(noise[None], dtype=torch.float32),
    )
    np.testing.assert_allclose(policy.act(obs, noise), wanted[0], atol=2e-5)
    with pytest.raises(PolicyError, match=r"'images.front' is float64: pictures are bytes \(uint8\) of shape \(2, 40"):
        policy.act(obs | {"images.front": obs["images.front"] / 255}, noise)
    capsys.readouterr()
    loop = split("--hz 1000 --episodes 1 --json")
    assert main(["run", file, "--env", FACTORY, "--env-kwargs", f"{{{LIMIT}}}", *loop]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6
    means = []
    for where in (out, file):
        assert main(["eval", where, "--env", FACTORY, "--env-kwargs", f"{{{LIMIT}}}", "--episodes", "3", "--json"]) == 0
        means.append(json.loads(capsys.readouterr().out)["return"]["mean"])
    assert means[1] == pytest.approx(means[0], abs=1e-3)


def test_an_archive_of_arrays_holds_no_policy_that_sees(refused):
    assert "without pictures, past_actions" in refused("export", "base", "--out", "policy.npz")


def test_a_file_resizes_what_the_robots_camera_gives(made, tmp_path):
    file = tmp_path / "policy.onnx"
    large = ["--camera-size", "images.front=75x96"]
    assert main(["export", str(made / "base"), "--out", str(file), "--data", str(made / "demos"), *large]) == 0
    policy, inside = Exported.load(file), load_policy(find_policy(made / "base"))
    assert policy.spec.observations["images.front"]["shape"] == (1, 75, 96, 3)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1, 75, 96, 3), np.uint8)
    state, noise = rng.uniform(-1, 1, (1, 2)), rng.standard_normal(policy.spec.noise_shape)
    seen = {"images.front": torch.as_tensor(resized(picture, SIZE)), "state": torch.as_tensor(np.float32(state))}
    wanted = inside.act({k: v[None] for k, v in seen.items()}, torch.as_tensor(np.float32(noise))[None])[0]
    np.testing.assert_allclose(policy.act({"images.front": picture, "state": state}, noise), wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("images.front=480", "'images.front=480' is not NAME=HEIGHTxWIDTH"),
        ("images.wrist=480x640", "unknown camera 'images.wrist'"),
        ("images.front=0x640", "shows nothing"),
    ],
)
def test_cameras_that_a_file_cannot_resize(refused, size, words):
    assert words in refused("export", "base", "--out", "policy.onnx", "--camera-size", size)
