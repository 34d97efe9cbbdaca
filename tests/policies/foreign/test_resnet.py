"""ResNet-18 files in torchvision's layout, of every kind, are loaded; batch normalisation is folded or refused."""

import re

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from noisepilot.errors import UserError
from noisepilot.policies.foreign.vision import load_resnet
from noisepilot.policies.vision.resnet import ConvNorm, ResNet18

from ..toys import jolt


def with_batch_norm() -> ResNet18:
    """A ResNet whose convolutions torch's own batch normalisation follows."""
    torch.manual_seed(0)
    net = ResNet18(16).double()
    for module in net.modules():
        if isinstance(module, ConvNorm):
            channels = module.conv.out_channels
            norm = module.norm = nn.BatchNorm2d(channels).double()
            norm.running_mean.copy_(0.1 * torch.randn(channels))
            norm.running_var.copy_(torch.rand(channels) + 0.5)
    jolt(net, 0.05)
    return net.eval()


def torchvision_names(net: ResNet18) -> dict[str, torch.Tensor]:
    """The layout of torchvision's state_dict, with its classifier."""
    patterns = (
        (r"^stem\.conv", "conv1"), (r"^stem\.norm", "bn1"), (r"^stages\.(\d)", lambda m: f"layer{int(m[1]) + 1}"),
        (r"\.first\.conv", ".conv1"), (r"\.first\.norm", ".bn1"), (r"\.second\.conv", ".conv2"),
        (r"\.second\.norm", ".bn2"), (r"\.skip\.conv", ".downsample.0"), (r"\.skip\.norm", ".downsample.1"),
    )  # fmt: skip
    named = {}
    for name, value in net.state_dict().items():
        for ours, theirs in patterns:
            name = re.sub(ours, theirs, name)
        named[name] = value.float() if value.is_floating_point() else value
    assert named["layer2.0.downsample.0.weight"].shape == (32, 16, 1, 1)
    return named | {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}


def write(folder, suffix: str, weights: dict[str, torch.Tensor]):
    path = folder / f"resnet18{suffix}"
    if suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in weights.items()})
    elif suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_batch_normalisation_is_folded(tmp_path, suffix):
    theirs = with_batch_norm()
    ours = ResNet18(16, norm="folded")
    load_resnet(ours, write(tmp_path, suffix, torchvision_names(theirs)))
    x = torch.rand(2, 3, 70, 64)
    expected = theirs(x.double())
    assert ((ours(x) - expected).abs().max() / expected.abs().max()).item() < 5e-6


def test_group_normalisation_is_loaded(tmp_path):
    theirs, ours = ResNet18(16), ResNet18(16)
    jolt(theirs)
    load_resnet(ours, write(tmp_path, ".safetensors", torchvision_names(theirs)))
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


def test_files_that_do_not_fit_are_refused(tmp_path):
    batch = write(tmp_path, ".pth", torchvision_names(with_batch_norm()))
    group = write(tmp_path, ".npz", torchvision_names(ResNet18(16)))
    text, broken, pair = (tmp_path / name for name in ("text.pth", "broken.safetensors", "pair.pth"))
    text.write_text("no tensors")
    broken.write_text("no tensors")
    torch.save({"epoch": 3}, pair)
    lacks = write(
        tmp_path, ".safetensors", {"conv1.weight": torch.zeros(16, 3, 7, 7), "bn1.running_var": torch.ones(16)}
    )
    folded, grouped = ResNet18(16, norm="folded"), ResNet18(16)
    for net, path, message in (
        (grouped, batch, "has batch normalisation, this network GroupNorm: set norm to 'folded'"),
        (folded, group, "no batch normalisation to fold into this network: set norm to 'group'"),
        (ResNet18(32), group, "does not fit a ResNet-18 of this width: size mismatch"),
        (folded, lacks, "does not fit a ResNet-18 of this width"),
        (folded, text, "is not a file of tensors"),
        (folded, broken, "is corrupt"),
        (folded, pair, "holds more than tensors by name"),
        (folded, tmp_path / "none.pth", "does not exist"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_resnet(net, path)
        assert "\n" not in str(caught.value)
