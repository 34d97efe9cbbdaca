"""The U-Net as a policy's network: folded, refused where it cannot be, trained, sampled, scored, tuned."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.decisions import Decisions
from noisepilot.algos.dppo import DPPO
from noisepilot.algos.reinflow import ReinFlow
from noisepilot.errors import UserError
from noisepilot.experiments.recipe import kinds, with_network
from noisepilot.policies import PolicyConfig, Stochastic, UNet
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.packed import packed
from noisepilot.policies.storage import load_policy, save_policy

from .toys import KINDS, check_fold, generator, jolt, observe, tiny

SIZES = Sizes((3, 2), 2, 4, 2)
SMALL = UNet((8, 16), 3, groups=4, last_groups=2, time_dim=4)
CONFIGS = {
    "small": SMALL,
    "one level": replace(SMALL, down_dims=(8,)),
    "three equal levels": replace(SMALL, down_dims=(8, 8, 8), kernel_size=5),
    "shift alone": replace(SMALL, film_scale=False),
    "three layers": replace(SMALL, film_layers=3, condition_hidden=(6, 5)),
    "local": replace(SMALL, local=True),
}
CHUNKS = {"horizon": 4, "n_action_steps": 2}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_fold_equals_forward(config, batch):
    torch.manual_seed(0)
    network = config.build(SIZES).double()
    features, x = torch.randn(batch, 10, dtype=torch.float64), torch.randn(batch, 4, 2, dtype=torch.float64)
    check_fold(network, x, features)


def test_a_step_computes_nothing_but_the_chunk():
    network = SMALL.build(SIZES)
    step = network.fold(torch.randn(3, 4), torch.randn(2, 10))
    for block in network.blocks():
        block.film.forward = None  # pyright: ignore[reportAttributeAccessIssue]
    assert step(1, torch.randn(2, 4, 2)).shape == (2, 4, 2)


def test_local_observations_stand_at_their_steps():
    network = replace(SMALL, local=True).build(SIZES)
    features = torch.arange(10.0)[None]  # first observation (0 1 2), (3 4 5); second (6 7), (8 9)
    columns = network.condition(features).unflatten(1, (5, 4))[0]
    assert columns.tolist() == [[0, 3, 0, 0], [1, 4, 0, 0], [2, 5, 0, 0], [6, 8, 0, 0], [7, 9, 0, 0]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kernel_size": 4}, "kernel_size 4 must be odd"),
        ({"groups": 3}, r"groups 3 must divide every one of the down_dims \(8, 16\)"),
        ({"last_groups": 16}, r"last_groups 16 must divide every one of the down_dims \(8,\)"),
        ({"down_dims": ()}, "down_dims must be one width or more"),
        ({"groups": 0}, "groups"),
        ({"time_dim": 5}, "time_dim 5 must be even"),
        ({"local": True, "condition_hidden": (4, 4)}, "leave condition_hidden empty"),
        ({"down_dims": (8, 16, 16, 16)}, "horizon 4 must be a multiple of 8 for 4 down_dims"),
        ({"condition_hidden": (4,)}, "odd number of equal hidden widths"),
    ],
)
def test_refused(change, named):
    with pytest.raises(UserError, match=named) as error:
        replace(SMALL, **change).build(SIZES)
    assert "\n" not in str(error.value)


def test_no_more_local_observations_than_steps():
    with pytest.raises(UserError, match="n_obs_steps 5 must not exceed the horizon 4"):
        replace(SMALL, local=True).build(replace(SIZES, n_obs_steps=5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("local", [False, True])
def test_scored_log_probs_are_the_sampled_ones(kind, local):
    policy = tiny(kind, steps=4, network=replace(SMALL, local=local), **CHUNKS).split(3)
    jolt(policy.network)
    context = policy.encode(observe(policy))
    with torch.no_grad():
        chain = policy.sample(context, policy.noise(4, generator(), steps=True), start=1, stochastic=Stochastic())
        assert chain.log_prob is not None
        assert (policy.score(context, chain, Stochastic()) - chain.log_prob).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["diffusion", "flow", "shortcut", "meanflow", "consistency"])
def test_every_kind_learns_and_acts(kind):
    config = kinds(replace(KINDS["ddim"], network=SMALL, **CHUNKS))[kind]
    assert config.network.step_size == (kind in ("shortcut", "meanflow"))
    torch.manual_seed(0)
    policy = tiny(network=SMALL, **CHUNKS)
    policy = config.build(policy.spec)
    for name in ("state", "action"):
        dim = 3 if name == "state" else 2
        policy.normalizer.set(name, torch.zeros(dim).numpy(), torch.ones(dim).numpy())
    policy = policy.double()
    bc, g = BC(grad_steps=100, batch=16, lr=1e-2), generator()
    state, obs = bc.init(policy), observe(policy, 16)
    action = obs["state"][:, :1, :2].clamp(-1, 1).expand(-1, 4, -1)
    losses = [bc.update(state, obs, action, g).item() for _ in range(100)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    assert policy.act(obs, generator=g).shape == (16, 4, 2)


def test_dppo_and_reinflow_tune_it():
    for algo, kind in ((DPPO(finetune_steps=2), "ddpm"), (ReinFlow(), "flow")):
        state = algo.init(tiny(kind, steps=4, network=SMALL, **CHUNKS))
        obs = observe(state.policy)
        action, extras = algo.act(state, obs, generator())
        assert action.shape == (4, 2, 2)
        zero = torch.zeros(4, dtype=torch.float64)
        batch = algo.minibatch_of(Decisions(extras, zero, zero, zero), torch.arange(4))
        for part in batch.parts(None):
            assert algo.log_ratio(state, part).abs().max() < 1e-12


def test_saved_and_loaded(tmp_path):
    policy = tiny("ddim", network=replace(SMALL, local=True), dtype=torch.float32, **CHUNKS)
    save_policy(policy, tmp_path / "p")
    obs, noise = observe(policy), policy.noise(4, generator())
    loaded = load_policy(tmp_path / "p", "cpu")
    assert loaded.config == policy.config
    assert (loaded.act(obs, noise) == policy.act(obs, noise)).all()


def test_packed_convolutions_compute_the_same():
    policy = tiny("ddim", network=SMALL, dtype=torch.float32, **CHUNKS)
    context, x = policy.encode(observe(policy, 20)), policy.noise(20, generator())[:, 0]
    half, last = torch.full((20,), 0.5), policy.network.out
    with torch.no_grad():
        plain = policy.predict(context, x, half)
    with packed(policy, 20):
        assert "forward" in vars(last)
        with torch.no_grad():
            assert (policy.predict(context, x, half) - plain).abs().max() < 1e-5
        policy.loss(policy.encode(observe(policy, 20)), x, half, x).sum().backward()
    assert last.weight.grad is not None
    assert "forward" not in vars(last)


def test_chosen_by_name():
    config = kinds(PolicyConfig())["shortcut"]
    assert with_network(config, "unet").network == UNet(step_size=True)
    assert with_network(config, "") == config
    with pytest.raises(UserError, match="did you mean"):
        with_network(config, "umet")
