"""LeRobot's spatial softmax and picture encoder, number by number."""

import pytest
import torch

from noisepilot.policies.foreign.vision import rgb_encoder_weights
from noisepilot.policies.vision import ResNet
from noisepilot.policies.vision.augment import centre_crop
from noisepilot.policies.vision.rgb import ColourNetwork
from noisepilot.policies.vision.softmax import SpatialSoftmax

from ..parity import Fixture
from ..test_parity_dppo import close
from .test_parity_dppo_vision import official

PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 2e-6)]


def bits(dtype: torch.dtype) -> int:
    return 64 if dtype == torch.float64 else 32


@pytest.mark.parametrize("name", ["lerobot_spatial_softmax_kp0", "lerobot_spatial_softmax_kp5"])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_spatial_softmax(shared_data, name, dtype, tolerance):
    f = Fixture(shared_data, name)
    features = f.tensor("features", dtype)
    pool = SpatialSoftmax(features.shape[1], features.shape[2:], f.set("num_kp")).to(dtype)
    weights = rgb_encoder_weights({f"pool.{k}": v for k, v in official(f, "net", dtype).items()})
    pool.load_state_dict({k.removeprefix("pool."): v for k, v in weights.items()})
    close(pool(features).detach(), f.tensor(f"out{bits(dtype)}.keypoints"), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_rgb_encoder(shared_data, dtype, tolerance):
    f = Fixture(shared_data, "lerobot_rgb_encoder_slim")
    network = ColourNetwork(ResNet(f.set("width"), f.set("num_kp")), f.set("crop")).to(dtype)
    network.load_state_dict(rgb_encoder_weights(official(f, "net", dtype)))
    images = centre_crop(f.tensor("rgb_0_1", dtype), f.set("crop"))
    close(network.backbone(images).detach(), f.tensor(f"out{bits(dtype)}.backbone"), tolerance)
    close(network(images).detach(), f.tensor(f"out{bits(dtype)}.features"), tolerance)
