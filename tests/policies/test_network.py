"""The denoising MLP: walking a chain with `fold` is the same network."""

import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies import MLP, CriticMLP
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.network import TimeEmbedding

from .toys import check_fold, generator

SIZES = Sizes((3,), 1, 4, 2)
CONFIGS = [
    MLP((8, 8, 8), time_dim=4),
    MLP((8, 8, 8, 8, 8), (6, 5), time_dim=6, activation="mish"),
    MLP((8, 7), residual=False, time_dim=4),
    MLP((8,), (6,), residual=True, time_dim=4),
    MLP((8, 8, 8), (4,), time_dim=4, activation="gelu", combine="add"),
    MLP((8, 8, 8), (6,), time_dim=0, activation="tanh"),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("batch", [1, 5])
def test_fold_equals_forward(config, batch):
    torch.manual_seed(0)
    network = config.build(SIZES).double()
    features, x = torch.randn(batch, 3, dtype=torch.float64), torch.randn(batch, 4, 2, dtype=torch.float64)
    check_fold(network, x, features)


def test_sizes_follow_the_configuration():
    network = MLP((8, 8, 8), (6,), time_dim=4).build(SIZES)
    assert network.trunk[0].in_features == 4 * 2 + 4 + 6
    assert network.trunk[-1].out_features == 8
    assert len(network.trunk) == 3  # in, one block of two layers, out
    assert not isinstance(network.condition, torch.nn.Identity)
    assert isinstance(MLP().build(SIZES).condition, torch.nn.Identity)


def test_times_are_told_apart():
    embedding = MLP(time_dim=8).build(SIZES).time_embedding
    assert isinstance(embedding, TimeEmbedding)
    shown = embedding[0](torch.arange(100.0))
    assert shown.shape == (100, 8)
    distance = torch.cdist(shown, shown) + 9 * torch.eye(100)
    assert distance.min() > 1e-3
    by_hand = torch.cat([torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3), 1e-4])] * 2) * 7
    by_hand = torch.cat([by_hand[:4].sin(), by_hand[4:].cos()])
    assert (shown[7] - by_hand).abs().max() < 1e-5


def test_time_may_be_shown_as_it_is():
    t, d = torch.tensor([0.25, 0.5]), torch.tensor([0.1, 0.2])
    assert MLP(time_dim=0).build(SIZES).time_embedding(t).tolist() == [[0.25], [0.5]]
    both = MLP(time_dim=0, step_size=True).build(SIZES).time_embedding(t, d)
    assert (both == torch.stack([t, d], 1)).all()


def test_added_embeddings_must_be_equally_wide():
    with pytest.raises(UserError, match="combine 'add'"):
        MLP(time_dim=8, combine="add").build(SIZES)


def test_critic_sees_the_observation_alone():
    critic = CriticMLP((8, 8, 8)).build(3)
    features = torch.randn(5, 3, generator=generator())
    assert critic(features).shape == (5,)
    assert (critic(features)[2] - critic(features[2:3])[0]).abs() < 1e-6
