"""Official U-Nets and networks that see pictures become policies: their numbers, a decision, and what is refused."""

from shlex import split

import numpy as np
import pytest
import torch
from einops import rearrange

from noisepilot.envs import make
from noisepilot.experiments.cli import main
from noisepilot.policies import load_policy
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.foreign.dppo_names import our_names
from noisepilot.policies.foreign.unet import load_official_unet

from ..policies.foreign.files import checkpoint, weights_of
from ..policies.parity import Fixture
from ..policies.test_parity_dppo import close
from ..policies.test_parity_unet import dppo
from ..policies.vision.test_parity_dppo_vision import encoder_of, official
from .shaped import shaped

UNETS = [
    ("additive_small_encoder", {"arm": 4, "block": 7}, ""),
    ("furniture_like", {"arm": 40, "block": 18}, "--policy.horizon 8 --policy.network.groupnorm-eps 1e-4"),
    ("square", {"arm": 9, "block": 14}, ""),
]
ARM, HAND = 5, 4
"""of the nine numbers that the robot's state has in the picture fixtures"""
CAMERA = (48, 48, 3)
STATES = {"hand": HAND, "arm": ARM}


class Limits:
    """A normalization.npz of a state and an action, and the official way back from what it makes of a state."""

    def __init__(self, path, state: int, action: int):
        rng = np.random.default_rng(0)
        self.path, self.values = path, {}
        for name, dim in (("obs", state), ("action", action)):
            low = rng.normal(size=dim)
            self.values |= {f"{name}_min": low, f"{name}_max": low + rng.uniform(0.5, 3, dim)}
        np.savez(path, **self.values)

    def physical(self, state: torch.Tensor) -> torch.Tensor:
        low, high = (torch.from_numpy(self.values[f"obs_{end}"]) for end in ("min", "max"))
        return (state / 2 + 0.5) * (high - low + 1e-6) + low


@pytest.fixture
def bring(tmp_path):
    """A function that imports tensors beside limits, and returns the policy."""

    def run(tensors, limits: Limits, *options: str):
        weights = checkpoint(tmp_path / "state_10.pt", tensors, epoch=10)
        files = ["--weights", str(weights), "--normalization", str(limits.path), "--out", str(tmp_path / "policy")]
        assert main(["import", *options, *files]) == 0
        return load_policy(tmp_path / "policy", "cpu")

    return run


def output_of(policy, f: Fixture, obs) -> torch.Tensor:
    """The network's, for the fixture's chunk and time."""
    times = policy.network.time_embedding(f.tensor("t").to(policy.dtype))
    return policy.network(f.tensor("x", policy.dtype), times, policy.encode(obs).condition).detach()


@pytest.mark.parametrize(("name", "states", "options"), UNETS)
def test_unet(shared_data, tmp_path, bring, capsys, name, states, options):
    f = Fixture(shared_data, f"dppo_unet_{name}")
    limits = Limits(tmp_path / "n.npz", f.set("Do"), f.set("Da"))
    horizon = f.tensor("x").shape[1]
    policy = bring(weights_of(f, "net"), limits, *shaped(states, f.set("Da")), *split(options)).double()
    assert policy.config.network == dppo(f)
    assert (policy.spec.horizon, policy.spec.n_obs_steps) == (horizon, 1)
    said = capsys.readouterr().out
    assert f"down_dims {dppo(f).down_dims}, kernel_size 5" in said
    assert f"taken from the recipe and options: groups 8, groupnorm_eps {f.set('groupnorm_eps')}, horizon" in said
    assert "states in this order: arm, block" in said
    parts = f.tensor("state").split(list(states.values()), -1)
    obs = {name: policy.normalizer.denormalize(name, part) for name, part in zip(states, parts, strict=True)}
    output = policy.network(
        f.tensor("x"), policy.network.time_embedding(f.tensor("t").double()), condition(policy, obs)
    )
    close(output.detach(), f.tensor("out64.eps"))


def condition(policy, obs):
    return policy.encode(obs).condition


def seen(f: Fixture, limits: Limits) -> dict[str, torch.Tensor]:
    """What the fixture's network saw, in physical units: the arm before the hand, one camera after the other."""
    arm, hand = limits.physical(f.tensor("state")).split([ARM, HAND], -1)
    pictures = rearrange(f.tensor("rgb_0_255"), "b t (n c) h w -> n b t h w c", c=3).byte()
    return {"arm": arm, "hand": hand} | {f"images.{'ab'[i]}": picture for i, picture in enumerate(pictures)}


PICTURES = [
    ("1img", "--policy.observe arm hand images.a --kind flow"),
    ("2img", "--policy.observe arm hand images.a images.b"),
    ("2img", "--policy.observe arm hand images.b images.a"),
]


@pytest.mark.parametrize(("name", "options"), PICTURES)
def test_vision_mlp(shared_data, tmp_path, bring, capsys, name, options):
    """The same names are those of DPPO's and of ReinFlow's network."""
    f = Fixture(shared_data, f"dppo_vision_mlp_{name}")
    limits = Limits(tmp_path / "n.npz", f.set("Do"), f.set("Da"))
    env = shaped(STATES, f.set("Da"), a=CAMERA, b=CAMERA)
    chosen = "--policy.network.activation mish --policy.encoder.heads 4"
    policy = bring(weights_of(f, "actor"), limits, *env, *split(f"{options} {chosen}"))
    said = capsys.readouterr().out
    assert "n_obs_steps 1, ViT of overlapping patches, width 32, depth 1, features 24" in said
    assert "taken from the recipe and options: activation mish, heads 4, " in said
    assert "states in this order: arm, hand" in said
    cameras = [word for word in split(options) if word.startswith("images.")]
    assert list(policy.pictures) == cameras
    assert ("cameras in this order: " + ", ".join(cameras) in said) == (len(cameras) == 2)
    obs = seen(f, limits)
    swapped = dict(zip(cameras, (obs[f"images.{c}"] for c in "ab"[: len(cameras)]), strict=True))
    close(output_of(policy, f, obs | swapped), f.tensor("out.eps"), 1e-5)


def test_vision_unet(shared_data, tmp_path, bring):
    """No official numbers hold both: the encoder's, and the U-Net's over its features and the state."""
    f, u = Fixture(shared_data, "dppo_vision_mlp_2img"), Fixture(shared_data, "dppo_unet_additive_small_encoder")
    g, wide = torch.Generator().manual_seed(0), 2 * f.set("spatial_emb") + f.set("Do")
    unet = {k.removeprefix("w.net."): u.tensor(k, torch.float32) for k in u.arrays if k.startswith("w.net.")}
    for name in [name for name in unet if name.endswith("cond_encoder.1.weight")]:
        drawn = torch.randn(len(unet[name]), wide, generator=g) / 8
        unet[name] = torch.cat([unet[name][:, : u.set("dsed")], drawn], 1)
    eyes = {k: v for k, v in official(f, "actor").items() if k.startswith(("backbone.", "compress"))}
    limits = Limits(tmp_path / "n.npz", f.set("Do"), u.set("Da"))
    env = shaped(STATES, u.set("Da"), a=CAMERA, b=CAMERA)
    order = split("--policy.observe arm hand images.a images.b")
    policy = bring({f"ema/network.{k}": v for k, v in (eyes | unet).items()}, limits, *env, *order)

    encoder, state, images = encoder_of(f)
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in our_names(eyes).items()})
    reference = dppo(u).build(Sizes((wide,), 1, 4, u.set("Da")))
    load_official_unet(reference, unet, "dppo")
    x, t = u.tensor("x", torch.float32), u.tensor("t").float()
    features = torch.cat([encoder(state, images), state.flatten(1)], 1)
    wanted = reference(x, reference.time_embedding(t), reference.condition(features))
    given = policy.network(x, policy.network.time_embedding(t), policy.encode(seen(f, limits)).condition)
    close(given.detach(), wanted.detach(), 1e-5)


def for_pusht(f: Fixture, seed: int = 0) -> dict[str, torch.Tensor]:
    """Official names of a network for PushT: the fixture's transformer, and drawn layers behind it."""
    g = torch.Generator().manual_seed(seed)
    wide, features, chunk = f.set("embed_dim"), 16, 8 * 2
    shapes = {
        "compress.weight": (1, wide, features),
        "compress.input_proj.0.weight": (features, 121 + 2),
        "compress.input_proj.0.bias": (features,),
        "compress.input_proj.1.weight": (features,),
        "compress.input_proj.1.bias": (features,),
        "time_embedding.1.weight": (32, 16),
        "time_embedding.1.bias": (32,),
        "time_embedding.3.weight": (16, 32),
        "time_embedding.3.bias": (16,),
        "mlp_mean.layers.0.weight": (24, chunk + 16 + features + 2),
        "mlp_mean.layers.0.bias": (24,),
        "mlp_mean.layers.1.weight": (chunk, 24),
        "mlp_mean.layers.1.bias": (chunk,),
    }
    vit = {f"backbone.{k}": v + 0.01 * seed for k, v in official(f, "net").items()}
    return vit | {k: torch.randn(shape, generator=g) / shape[-1] ** 0.5 for k, shape in shapes.items()}


def test_a_fine_tuned_policy_that_sees_acts(shared_data, tmp_path, bring, capsys):
    """In PushT: the base and its encoder make the first three steps of five."""
    pytest.importorskip("gym_pusht", reason="pip install 'noisepilot[pusht]'")
    f, limits = Fixture(shared_data, "dppo_vit_embed2"), Limits(tmp_path / "n.npz", 2, 2)
    frozen, tuned = for_pusht(f), for_pusht(f, 1)
    nets = {"network": frozen, "actor": frozen, "actor_ft": tuned, "critic": frozen}
    parts = {f"model/{net}.{name}": value for net, weights in nets.items() for name, value in weights.items()}
    options = ["pusht-pixels", *split("--policy.path.levels 100 --policy.sampler.steps 5 --policy.sampler.eta 0")]
    base = bring(parts, limits, *options, "--prefix", "model/actor.")
    capsys.readouterr()
    policy = bring(parts, limits, *options, "--finetune-steps", "2")
    said = capsys.readouterr().out
    assert "heads 4, 5 steps of eta 0, CosinePath, n_action_steps 8" in said
    assert f"left out: model/critic ({len(frozen)} tensors)" in said
    assert "sees agent_pos (2,), image (96, 96, 3); acts (2,); made for gym_pusht/PushT-v0" in said
    env = make(policy.spec.env, **policy.spec.env_kwargs)
    obs = {name: value[:, None] for name, value in env.reset([0]).items()}
    noise = policy.noise(1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (p.sample(p.encode(obs), noise).x[0] for p in (policy, base))
    assert torch.equal(ours[:4], theirs[:4])
    assert not torch.isclose(ours[4:], theirs[4:]).all((1, 2)).any()
    assert env.step(policy.act(obs, noise)).reward.isfinite().all()
    env.close()
    keywords = '{"obs_type": "pixels_agent_pos", "max_episode_steps": 9}'
    run = ["eval", str(tmp_path / "policy"), "--episodes", "1", "--num-envs", "1", "--env-kwargs", keywords]
    assert main(run) == 0


def test_limits_of_another_state_are_refused(shared_data, tmp_path, capsys):
    f = Fixture(shared_data, "dppo_unet_square")
    weights, limits = checkpoint(tmp_path / "state_1.pt", weights_of(f, "net")), Limits(tmp_path / "n.npz", 22, 7)
    files = ["--weights", str(weights), "--normalization", str(limits.path), "--out", str(tmp_path / "policy")]
    assert main(["import", *shaped({"arm": 9, "block": 14}, 7), *files]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "n.npz has 22 numbers of the state, the policy 23 (arm 9 + block 14): name the states" in line
    assert not (tmp_path / "policy").exists()
