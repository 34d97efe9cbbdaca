"""Policies that see, as a user trains and plays them; and what a user gives wrongly, answered before training."""

import json
from pathlib import Path
from shlex import split

import numpy as np
import pytest
import torch

from noisepilot.experiments.cli import main
from noisepilot.policies import load_policy
from noisepilot.policies.storage import find_policy
from noisepilot.policies.vision import Jitter, ViT
from noisepilot.policies.vision.resnet import ResNet18

from .seeing import FACTORY, RESNET, TRAIN, VIT, write_demos

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


def test_a_policy_that_sees_is_not_exported(refused):
    assert "sees pictures" in refused("export", "base", "--out", "policy.onnx")
