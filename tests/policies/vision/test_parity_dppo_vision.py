"""DPPO's ViT, the denoising MLP that sees by it, and its critic, number by number."""

import pytest
import torch
from einops import rearrange

from noisepilot.policies import MLP, CriticMLP
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.foreign.dppo_names import our_names
from noisepilot.policies.foreign.vision import rename_vit
from noisepilot.policies.vision import Encoder, ViT

from ..parity import Fixture
from ..test_parity_dppo import close


def official(f: Fixture, part: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    start = f"w.{part}."
    return {k.removeprefix(start): f.tensor(k, dtype) for k in f.arrays if k.startswith(start)}


def config_of(f: Fixture, features: int = 1) -> ViT:
    assert not f.set("embed_norm")
    patches = "overlapping" if f.set("embed2") else "separate"
    return ViT(patches, f.set("embed_dim"), f.set("depth"), f.set("num_heads"), features)


@pytest.mark.parametrize("name", ["dppo_vit_embed1_depth2", "dppo_vit_embed2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_transformer(shared_data, name, dtype, tolerance):
    f, part = Fixture(shared_data, name), "transformer."
    side, channels = f.set("img"), f.set("num_channel")
    encoder = config_of(f).build({"camera": (side, side, channels)}, 0, 1).to(dtype)
    weights = {rename_vit(k).removeprefix(part): v for k, v in official(f, "net", dtype).items()}
    encoder.transformer.load_state_dict(weights)
    images = rearrange(f.tensor("rgb_0_255", dtype), "b c h w -> b 1 h w c")
    patches = encoder.transformer(images[:, 0].movedim(-1, 1) / 255 - 0.5)
    close(patches.detach(), f.tensor(f"out{64 if dtype == torch.float64 else 32}.features"), tolerance)


def encoder_of(f: Fixture) -> tuple[Encoder, torch.Tensor, dict[str, torch.Tensor]]:
    """The encoder without weights, the state, and one camera per three channels."""
    cameras = [f"images.{i}" for i in range(f.set("num_img"))]
    side = f.set("img")
    encoder = config_of(f, f.set("spatial_emb")).build(dict.fromkeys(cameras, (side, side, 3)), f.set("Do"), 1)
    split = rearrange(f.tensor("rgb_0_255", torch.float32), "b t (n c) h w -> n b t h w c", c=3)
    assert (split == split.round()).all()
    return encoder, f.tensor("state", torch.float32), dict(zip(cameras, split.byte(), strict=True))


@pytest.mark.parametrize("name", ["dppo_vision_mlp_1img", "dppo_vision_mlp_2img"])
def test_denoising_mlp(shared_data, name):
    f = Fixture(shared_data, name)
    encoder, state, images = encoder_of(f)
    sizes = Sizes((*encoder.per_step, f.set("Do")), 1, f.set("Tp"), f.set("Da"), encoder.whole)
    network = MLP(hidden=(48, 48, 48), time_dim=16, activation="mish").build(sizes)
    network.encoder = encoder
    network.load_state_dict(our_names(official(f, "actor")))
    features = torch.cat([encoder(state, images), state.flatten(1)], 1)
    time = network.time_embedding(f.tensor("t").float())
    output = network(f.tensor("x", torch.float32), time, network.condition(features))
    close(output.detach(), f.tensor("out.eps"), 2e-6)


@pytest.mark.parametrize("name", ["dppo_vision_mlp_1img", "dppo_vision_mlp_2img"])
def test_critic(shared_data, name):
    f = Fixture(shared_data, name)
    encoder, state, images = encoder_of(f)
    critic = CriticMLP((32, 32, 32)).build(sum(encoder.per_step) + f.set("Do"))
    critic.encoder = encoder
    critic.load_state_dict(our_names(official(f, "critic")))
    value = critic(torch.cat([encoder(state, images), state.flatten(1)], 1))
    close(value.detach(), f.tensor("out.value").flatten(), 2e-6)
