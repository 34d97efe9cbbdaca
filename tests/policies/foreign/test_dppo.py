"""DPPO's and ReinFlow's checkpoints: observations in their order of times, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies import MLP, PolicyConfig, UNet
from noisepilot.policies.foreign.dppo import fill, read_official
from noisepilot.policies.foreign.dppo_sizes import of_kind, sized
from noisepilot.policies.vision import ResNet, ViT
from noisepilot.spec import ArraySpec

from ..parity import Fixture
from ..test_parity_dppo import close
from .files import checkpoint, weights_of

HISTORY, UNET, COND, SEEING = (
    "dppo_mlp_plain_hist",
    "dppo_unet_square",
    "dppo_unet_furniture_like",
    "dppo_vision_mlp_2img",
)
CAMERA = (48, 48, 3)
ONE, TWO = {"images.a": CAMERA}, {"images.a": CAMERA, "images.b": CAMERA}


def specs(shapes):
    """Of name -> shape, or length."""
    return {name: ArraySpec(shape if isinstance(shape, tuple) else (shape,)) for name, shape in shapes.items()}


def read(path, f: Fixture, change=None):
    tensors = weights_of(f, "actor" if "w.actor.compress1.weight" in f.arrays else "net")
    if change:
        change(tensors)
    return read_official(checkpoint(path / "state_1.pt", tensors))


def built(config, weights, obs, action):
    config = sized(config, weights, specs(obs), action)
    return config.build(config.spec(specs(obs), ArraySpec((action,))))


def filled(path, weights, config, states, action):
    total = sum(states.values())
    ends = {"obs_min": -np.ones(total), "obs_max": np.ones(total)}
    np.savez(path / "n.npz", **ends, action_min=-np.ones(action), action_max=np.ones(action))
    return fill(built(config, weights, states, action), weights, path / "n.npz").double()


def look(policy, state: torch.Tensor) -> torch.Tensor:
    """The condition that a normalised state (B, T, S), cut into the policy's, gives."""
    parts = state.split([array.dim for array in policy.flat_obs.values()], -1)
    named = zip(policy.flat_obs, parts, strict=True)
    return policy.encode({name: policy.normalizer.denormalize(name, part) for name, part in named}).condition


@pytest.mark.parametrize(
    ("name", "states", "config"),
    [
        (HISTORY, {"b": 2, "a": 3}, PolicyConfig(MLP(activation="mish"))),
        (COND, {"b": 10, "a": 19}, PolicyConfig(UNet(groupnorm_eps=1e-4), horizon=8)),
    ],
)
def test_several_states_at_several_times(shared_data, tmp_path, name, states, config):
    """There a time follows the other, each with all states; here a state follows the other, each with all times."""
    f = Fixture(shared_data, name)
    policy = filled(tmp_path, read(tmp_path, f), config, states, f.set("Da"))
    times = 3 if name == HISTORY else 2
    assert policy.spec.n_obs_steps == times
    seen = look(policy, f.tensor("state").reshape(-1, times, sum(states.values())))
    x, t = f.tensor("x"), f.tensor("t").double()
    close(policy.network(x, policy.network.time_embedding(t), seen).detach(), f.tensor("out64.eps"))


def test_several_states_where_every_block_of_a_unet_sees_them(shared_data, tmp_path):
    """No official numbers have times there: the states apart see what they see as one."""
    f = Fixture(shared_data, UNET)

    def narrower(tensors):
        for key in [key for key in tensors if key.endswith("cond_encoder.0.weight")]:
            tensors[key] = tensors[key][:, :-1]

    weights = read(tmp_path, f, narrower)
    apart, whole = (filled(tmp_path, weights, PolicyConfig(), s, 7) for s in ({"b": 4, "a": 7}, {"all": 11}))
    state = f.tensor("state")[..., :-1].reshape(-1, 2, 11)
    x, t = f.tensor("x"), f.tensor("t").double()
    ours, theirs = (p.network(x, p.network.time_embedding(t), look(p, state)).detach() for p in (apart, whole))
    close(ours, theirs)


def test_kinds_show_in_the_names(shared_data, tmp_path):
    unet, seeing, mlp = (read(tmp_path, Fixture(shared_data, name)) for name in (UNET, SEEING, HISTORY))
    fitting = PolicyConfig(UNet(groups=4), encoder=ViT(heads=2))
    assert of_kind(fitting, unet) == replace(fitting, encoder=None)
    assert of_kind(fitting, seeing) == replace(fitting, network=MLP())
    assert of_kind(PolicyConfig(encoder=ResNet()), seeing).encoder == ViT()
    assert of_kind(PolicyConfig(UNet(step_size=True)), mlp).network == MLP(step_size=True)
    read_off = sized(fitting, unet, specs({"state": 23}), 7).network
    assert read_off == UNet((64, 128), groups=4, last_groups=4, time_dim=16, film_layers=3)


ARM = {"arm": 5, "hand": 4}
REFUSED = [
    (UNET, {"state": 23}, 6, {}, "acts by 7 numbers, the environment's action has 6: choose its recipe"),
    (UNET, {"state": 9}, 7, {}, "states have 23 numbers, no multiple of the environment's state of 9: name the states"),
    (UNET, {"state": 23}, 7, {"horizon": 5}, "horizon 5 must be a multiple of 2 for 2 down_dims"),
    (UNET, {"state": 23}, 7, {"network": UNet(groups=128)}, "groups 128 must divide every one of the down_dims"),
    (UNET, {"state": 23}, 7, {"network": UNet(step_size=True)}, "not see the step size: import it with --kind diff"),
    (UNET, {"state": 23, **ONE}, 7, {}, r"sees 0 cameras, the policy would see 1 \(images.a\): name what it was"),
    (SEEING, ARM, 7, {}, "sees 2 cameras, the policy would see none: name what it was trained with, in its order"),
    (SEEING, ARM | ONE, 7, {}, r"sees 2 cameras, the policy would see 1 \(images.a\): name what it was"),
    (SEEING, TWO, 7, {}, "sees a state, and there is none beside images.a, images.b: choose another environment"),
    (SEEING, {"state": 3} | TWO, 7, {}, "sees 1 pictures of 3 channels and 3 states in a decision: only as many"),
    (SEEING, ARM | dict.fromkeys(TWO, (64, 48, 3)), 7, {}, r"25 patches, and 'images.a' of \(64, 48\) has 35: let"),
    (SEEING, ARM | TWO, 7, {"encoder": ViT(heads=5, width=5)}, "width 32 must be a multiple of its heads 5"),
    (SEEING, ARM | TWO, 7, {"observe": ("arm", "images.c")}, "unknown observation 'images.c': did you mean"),
]


@pytest.mark.parametrize(("name", "obs", "action", "changes", "words"), REFUSED)
def test_what_does_not_fit_is_refused(shared_data, tmp_path, name, obs, action, changes, words):
    weights = read(tmp_path, Fixture(shared_data, name))
    with pytest.raises(UserError, match=rf"^[^\n]*{words}[^\n]*$"):  # one line
        built(PolicyConfig(**changes), weights, obs, action)


def drop(start):
    return lambda tensors: [tensors.pop(name) for name in list(tensors) if start in name]


def add(name, *shape):
    return lambda tensors: tensors.update({f"ema/network.{name}": np.ones(shape, np.float32)})


NOT_THESE = [
    (SEEING, add("td_emb.0.weight", 2, 2), r"a shortcut network that sees pictures \(ShortCutFlowViT\), which has no"),
    (SEEING, add("compress.0.weight", 2, 2), r"an encoder without spatial embedding \(spatial_emb 0\)"),
    (SEEING, add("backbone.vit.patch_embed.embed.1.weight", 2), r"an encoder that normalises patches \(embed_norm\)"),
    (HISTORY, add("mlp_mean.moduleList.0.norm_1.weight", 2), r"an MLP with layer normalisation \(use_layernorm\)"),
    (HISTORY, add("mlp_mean.layers.1.norm1.weight", 2), r"an MLP with layer normalisation \(use_layernorm\)"),
    (HISTORY, drop("time_embedding"), "holds no denoising MLP or U-Net, but trunk: only those are imported"),
    (SEEING, drop("pos_embed"), "holds a part of a network alone .*transformer.place.*: copy it again"),
    (HISTORY, drop("time_embedding.3"), "holds a part of a network alone .*: copy it again"),
]


@pytest.mark.parametrize(("name", "change", "words"), NOT_THESE)
def test_other_networks_are_refused(shared_data, tmp_path, name, change, words):
    f = Fixture(shared_data, name)
    with pytest.raises(UserError, match=rf"^[^\n]*{words}[^\n]*$"):
        sized(PolicyConfig(), read(tmp_path, f, change), specs({"state": 5} if name == HISTORY else ARM | TWO), 7)


def test_a_network_over_the_state_beside_pictures_is_refused(shared_data, tmp_path):
    eyes = weights_of(Fixture(shared_data, SEEING), "actor")
    eyes = {name: value for name, value in eyes.items() if "backbone" in name or "compress" in name}
    weights = read(tmp_path, Fixture(shared_data, COND), lambda tensors: tensors.update(eyes))
    with pytest.raises(UserError, match=r"a U-Net with both pictures and a network over the state \(cond_mlp\)"):
        sized(PolicyConfig(horizon=8), weights, specs({"state": 58} | TWO), 10)
