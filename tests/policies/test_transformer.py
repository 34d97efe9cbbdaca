"""The diffusion transformer as a policy's network: folding, learning, scoring, dropping, export, refusals."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.reinflow import NoiseMLP
from noisepilot.errors import UserError
from noisepilot.policies import MeanFlow, Stochastic, Transformer, UNet, load_policy, save_policy
from noisepilot.policies.denoiser import Sizes

from .toys import KINDS, check_fold, generator, jolt, observe, tiny

TINY = Transformer(layers=2, heads=2, width=8, dropout=0.0)
CONFIGS = [
    TINY,
    replace(TINY, first="oldest"),
    replace(TINY, causal=False, heads=1),
    replace(TINY, condition_layers=2),
    replace(TINY, cross=False),
    replace(TINY, cross=False, causal=False),
]
OBS = {"state": 3, "goal": 2}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("batch", [1, 5])
def test_fold_equals_forward(config, batch):
    torch.manual_seed(0)
    network = config.build(Sizes((3, 2), 3, 4, 2)).double()
    jolt(network)
    features, x = (torch.randn(batch, *n, dtype=torch.float64) for n in ((15,), (4, 2)))
    check_fold(network, x, features)


def reaches(config, *, of_chunk: bool):
    """Which outputs (rows) move with which actions of the chunk, or with which observations in time (columns)."""
    network = config.build(Sizes((3, 2), 3, 4, 2)).double()
    jolt(network)
    times = network.time_embedding(torch.ones(1, dtype=torch.float64))

    def output(x, features):
        return network(x, times, network.condition(features)).sum(-1)[0]

    where = (torch.randn(1, 4, 2, dtype=torch.float64), torch.randn(1, 15, dtype=torch.float64))
    by_x, by_features = torch.autograd.functional.jacobian(output, where)
    if of_chunk:
        return (by_x[:, 0].abs().sum(-1) > 0).int().tolist()
    state, goal = by_features[:, 0].abs().split([9, 6], 1)  # each observation with all its times
    return ((state.unflatten(1, (3, 3)).sum(-1) > 0) & (goal.unflatten(1, (3, 2)).sum(-1) > 0)).int().tolist()


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_seen(config):
    triangle, everything = torch.ones(4, 4).tril().int().tolist(), [[1] * 4] * 4
    assert reaches(config, of_chunk=True) == (triangle if config.causal else everything)
    early = [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert reaches(config, of_chunk=False) == (early if config.first == "oldest" else [[1] * 3] * 4)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_scores_are_those_of_sampling(config, kind):
    policy = tiny(kind, steps=4, network=config, obs=OBS).split(3)
    jolt(policy.network)
    context = policy.encode(observe(policy))
    noise = policy.noise(4, generator(), steps=True)
    with torch.no_grad():
        chain = policy.sample(context, noise, start=1, stochastic=Stochastic())
        again = policy.score(context, chain, Stochastic())
    assert (again - chain.log_prob).abs().max() < 1e-12
    draws = policy.encode({k: v[:1].repeat_interleave(4, 0) for k, v in observe(policy).items()})
    repeated = policy.encode({k: v[:1] for k, v in observe(policy).items()}).repeat(4)
    assert (draws.condition - repeated.condition).abs().max() < 1e-12


def data(policy, batch=64):
    obs = observe(policy, batch)
    target = torch.stack([obs["state"][:, -1, :2] * (h + 1) / 3 for h in range(policy.spec.horizon)], 1)
    return obs, target


@pytest.mark.parametrize("config", [replace(CONFIGS[i], width=16, dropout=0.1, token_dropout=0.05) for i in (0, 3, 4)])
def test_learns_and_drops_in_training_alone(config):
    policy = tiny("ddpm", network=config, obs=OBS, scale=False)
    algo = BC(grad_steps=150, lr=5e-3, ema_decay=0.9, ema_every=1)
    state, g = algo.init(policy), generator()
    obs, target = data(policy)
    losses = [algo.update(state, obs, target, g).item() for _ in range(algo.grad_steps)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    for acting in (policy, state.averaged()):
        noise = acting.noise(64, generator())
        assert (acting.act(obs, noise) == acting.act(obs, noise)).all()


def test_dropping_follows_from_the_generator():
    def losses(config, generator_seed, global_seed):
        policy = tiny("ddpm", network=config, obs=OBS)
        state, (obs, target) = BC(grad_steps=4).init(policy), data(policy)
        torch.manual_seed(global_seed)
        g = generator(generator_seed)
        return [BC(grad_steps=4).update(state, obs, target, g).item() for _ in range(3)], torch.rand(()).item()

    config = replace(TINY, dropout=0.5)
    (first, after), (again, elsewhere) = losses(config, 0, 1), losses(config, 0, 2)
    assert first == again
    assert after != elsewhere  # nobody's global numbers are touched
    assert losses(config, 1, 1)[1] == after
    # The first loss has seen no gradient: it differs by the dropped activations or not at all.
    assert losses(replace(config, dropout=0.0), 0, 1)[0][0] != first[0]


def test_step_sizes_and_their_derivative():
    policy = tiny("flow", network=replace(TINY, step_size=True), obs=OBS, objective=MeanFlow())
    obs, target = data(policy)
    policy.config.objective.loss(policy, policy.encode(obs), target, generator()).mean().backward()
    assert all(p.grad.isfinite().all() for p in policy.network.parameters())
    assert policy.network.time_embedding(torch.ones(2).double(), torch.ones(2).double()).shape == (2, 8)


def test_noise_network_of_reinflow_fits():
    policy = tiny("flow", network=TINY, obs=OBS)
    noise = NoiseMLP((8,)).build(policy, 2)
    assert noise(policy.embed_times(), policy.encode(observe(policy)).condition).shape == (4, 4, 3, 2)


def test_gradient_of_the_loss_against_differences():
    policy = tiny("ddpm", network=TINY, obs=OBS)
    jolt(policy.network)
    obs, target = data(policy, 4)
    t, noise = torch.full((4,), 0.4, dtype=torch.float64), torch.randn(4, 3, 2, generator=generator()).double()

    def loss():
        return policy.loss(policy.encode(obs), target, t, noise).mean()

    parameters = list(policy.network.parameters())
    grads = torch.autograd.grad(loss(), parameters)
    towards = [torch.randn(p.shape, dtype=torch.float64, generator=generator(3)) for p in parameters]
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, v in zip(parameters, towards, strict=True):
                p += sign * 1e-6 * v
        ends.append(loss().item())
    slope = sum((g * v).sum().item() for g, v in zip(grads, towards, strict=True))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


def test_a_folder_brings_it_back(tmp_path):
    policy = tiny("ddpm", steps=2, network=CONFIGS[1], obs=OBS, dtype=torch.float32).split(1)
    jolt(policy.network)
    loaded = load_policy(save_policy(policy, tmp_path / "policy"), "cpu")
    noise = policy.noise(4, generator())
    assert loaded.config == policy.config
    assert (loaded.act(observe(policy), noise) == policy.act(observe(policy), noise)).all()


@pytest.mark.parametrize("config", [CONFIGS[i] for i in (1, 3, 4)])
def test_exported_graph_acts_the_same(tmp_path, config):
    pytest.importorskip("onnxruntime")
    from noisepilot.deploy.export import export
    from noisepilot.deploy.runtime import Policy as Exported

    policy = tiny("ddim", steps=2, network=config, obs=OBS, dtype=torch.float32).split(1)
    jolt(policy.network)
    exported = Exported.load(export(policy.eval(), tmp_path / "p.onnx", provenance={}))
    for batch in (1, 7):
        obs, noise = observe(policy, batch), policy.noise(batch, generator(2))
        theirs = exported.act({k: v.numpy() for k, v in obs.items()}, noise.numpy())
        assert abs(theirs - policy.act(obs, noise).numpy()).max() < 1e-5
    with pytest.raises(UserError, match=r"past_actions or max_prefix only: export to a path that ends in \.onnx"):
        export(policy, tmp_path / "p.npz", provenance={})


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_the_paper_and_fit_every_kind(kind):
    policy = tiny(kind, network=Transformer(), dtype=torch.float32)
    last = policy.network.get_submodule("blocks.7.attention")
    assert (len(policy.network.blocks), last.heads, last.width) == (8, 4, 256)
    assert policy.act(observe(policy)).shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 3}, "width 256 must be even, at least 4 and a multiple of heads 3: change one of them"),
        ({"width": 5, "heads": 5}, "width 5 must be even"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"dropout": 1.5}, "dropout 1.5 must lie between 0 and 1"),
        ({"cross": False, "condition_layers": 1}, "condition_layers make a memory"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(UserError, match=words) as error:
        Transformer(**settings)
    assert "\n" not in str(error.value)


def test_features_of_all_times_together_are_refused():
    sizes = Sizes((3,), 2, 4, 2, whole=8)
    for config in (TINY, UNet((8,), groups=4, last_groups=4, local=True)):
        with pytest.raises(UserError, match="n_obs_steps to 1"):
            config.build(sizes)
