"""ReinFlow's parts by hand, its update as a whole, and that it learns (float64 unless said)."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from noisepilot.algos import ppo
from noisepilot.algos.audit import TOLERANCE
from noisepilot.algos.reinflow import NoiseMLP, ReinFlow, whole_chain
from noisepilot.errors import UserError
from noisepilot.policies import MLP, Shortcut

from ..policies.test_modes import KINDS, two_modes
from ..policies.toys import generator, jolt, observe, tiny
from .toys import CRITIC, rollout_of, weights

ALGO = ReinFlow(critic=CRITIC, noise=NoiseMLP((8,), decay=0), minibatch=30, epochs=2, repeats=3, actor_lr_min=None)
SHORTCUT = {"network": MLP((12, 12, 12), (6,), 4, "mish", step_size=True), "objective": Shortcut()}
BASES = {"flow": ("flow", {}), "shortcut": ("flow", SHORTCUT), "diffusion": ("ddim", {})}


def started(base="flow", steps=4, dtype=torch.float64, algo=ALGO):
    kind, changes = BASES[base]
    state = replace(algo, steps=steps).init(tiny(kind, dtype=dtype, **changes))
    jolt(state.noise)
    rollout = rollout_of(algo, state, generator())
    return state, rollout, algo.prepare(state, rollout, torch.Generator())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("steps", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_start_of_an_update_has_no_ratio(base, steps, dtype):
    state, _, decisions = started(base, steps, dtype)
    batch = ALGO.minibatch_of(decisions, torch.arange(60))
    ratio = ALGO.log_ratio(state, batch).exp()
    assert (ratio - 1).abs().max() <= TOLERANCE[dtype]


def test_without_noise_it_is_its_base():
    base = tiny("flow")
    state = ALGO.init(base)
    noise = base.noise(4, generator(), steps=False)
    assert (state.policy.act(observe(base), noise) == base.act(observe(base), noise)).all()


def test_zero_advantage_gives_no_policy_gradient():
    state, _, decisions = started()
    jolt(state.policy.network)
    algo = replace(ALGO, entropy_coef=0.0)
    batch = algo.minibatch_of(decisions, torch.arange(60))
    loss, _ = algo.policy_loss(state, replace(batch, advantage=torch.zeros_like(batch.advantage)))
    loss.sum().backward()
    trained = [*state.policy.network.parameters(), *state.noise.parameters()]
    assert all(p.grad is None or (p.grad == 0).all() for p in trained)


def test_time_gets_no_gradient_from_the_noise():
    state, _, _ = started()
    std = state.std(state.policy.encode(observe(state.policy)))
    std.sum().backward()
    assert all(p.grad is None for p in state.policy.network.time_embedding.parameters())
    assert all((p.grad != 0).any() for p in state.policy.network.condition.parameters())


def test_weights_stand_for_repeats():
    """A minibatch with repeated decisions has the gradient of the plain mean over its samples."""
    state, _, decisions = started()
    jolt(state.policy.network)
    rows = torch.randint(60, (25,), generator=generator(4))
    batch = ALGO.minibatch_of(decisions, rows)
    assert batch.weight.max() > 1
    trained = list(state.policy.network.parameters())
    ours = torch.autograd.grad(ALGO.policy_loss(state, batch)[0].sum() / batch.size, trained)
    d = rows % 20
    advantage = (decisions.advantage[d] - decisions.advantage[d].mean()) / (decisions.advantage[d].std() + 1e-8)
    plain = replace(batch, decision=d, weight=torch.ones(25).double(), advantage=advantage)
    expected = torch.autograd.grad(ALGO.policy_loss(state, plain)[0].mean(), trained)
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("rows", [1, 7, 16])
def test_micro_batches_add_up(rows, monkeypatch):
    grads = []
    for size in (10**9, rows):
        monkeypatch.setattr(ppo, "MICRO_BATCH", size)
        state, _, decisions = started()
        jolt(state.policy.network)
        batch = ALGO.minibatch_of(decisions, torch.arange(60))
        ALGO._step(state, batch, decisions, defaultdict(list))
        modules = (state.policy.network, state.noise, state.critic)
        grads.append([p.grad for m in modules for p in m.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_noise_bounds_and_their_schedule():
    config = NoiseMLP(min_std=0.1, max_std=0.24, hold=350, decay=650, final=0.7)
    assert config.upper_bound(0) == config.upper_bound(349) == 0.24
    assert config.upper_bound(675) == pytest.approx(0.1 + 0.14 * 0.85)
    assert config.upper_bound(1000) == config.upper_bound(5000) == pytest.approx(0.1 + 0.14 * 0.7)
    state, _, _ = started()
    jolt(state.noise, 50.0)
    std = state.std(state.policy.encode(observe(state.policy)))
    assert std.min() >= 0.1 - 1e-12
    assert std.max() <= 0.24 + 1e-12
    assert std.max() - std.min() > 0.1


def test_only_the_last_steps_learn_their_noise():
    state = replace(ALGO, finetune_steps=1).init(tiny("flow"))
    jolt(state.noise)
    std = state.std(state.policy.encode(observe(state.policy)))
    assert (std[:, :3] == 0.1).all()
    assert (std[:, 3] != 0.1).all()


def test_learning_rates_warm_up_and_fall():
    algo = ReinFlow(critic=CRITIC)
    state = algo.init(tiny("flow"))
    rates = {}
    for iteration in (0, 5, 10, 55, 100):
        state.iteration = iteration
        algo.set_iteration(state)
        rates[iteration] = state.actor_optimizer.param_groups[0]["lr"]
    middle = (4.5e-5 + 2e-5) / 2
    assert rates == pytest.approx({0: 2e-5, 5: middle, 10: 4.5e-5, 55: middle, 100: 2e-5})


def test_distance_to_the_base_starts_at_nothing_and_grows():
    state, _, _ = started()
    context = state.policy.encode(observe(state.policy))
    assert (ALGO.distance(state, context, state.base.context(context.features)) == 0).all()
    jolt(state.policy.network)
    assert (ALGO.distance(state, context, state.base.context(context.features)) > 0).all()


def test_whole_chain_is_the_joint_density():
    state, _, _ = started()
    context = state.policy.encode(observe(state.policy))
    chain = state.policy.sample(context, state.policy.noise(4, generator(), steps=True), stochastic=state.std(context))
    first = torch.distributions.Normal(0.0, 1.0).log_prob(chain.x[:, 0]).sum((1, 2))
    assert (
        whole_chain(chain.x[:, 0], chain.log_prob) * 5 * 6 - first - chain.log_prob.sum((1, 2, 3))
    ).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_mass_moves_to_the_better_mode(kind):
    base = two_modes(KINDS[kind], 400)
    noise = NoiseMLP((16,), min_std=0.05, max_std=0.2, decay=0)
    algo = ReinFlow(
        steps=4, noise=noise, clip=0.1, actor_lr=2e-3, actor_lr_min=None, epochs=5, minibatch=500, repeats=2,
        critic=CRITIC, target_kl=0.1, entropy_coef=0.0,
    )  # fmt: skip
    state, g = algo.init(base), generator()
    for _ in range(25):
        reward = lambda action: (action[:, 0, 0] < 0).float()  # noqa: E731
        algo.update(state, rollout_of(algo, state, g, decisions=4, slots=128, reward=reward, ends=(1.1, 0.0)), g)
    action = state.policy.act({"state": torch.zeros(2000, 1, 1)}, generator=generator(1))
    assert (action > 0).float().mean() < 0.05
    assert action.median() == pytest.approx(-0.7, abs=0.35)  # still near the base's mode
    assert (weights(state.base.network) == weights(base.network)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NoiseMLP(min_std=0.0), "noise bounds"),
        (lambda: NoiseMLP(min_std=0.3, max_std=0.2), "noise bounds"),
        (lambda: ReinFlow(repeats=0), "repeats"),
        (lambda: ReinFlow(lr_warmup=200), "lr_warmup"),
        (lambda: replace(ALGO, steps=30).init(tiny("ddim")), "steps 30"),
        (lambda: replace(ALGO, finetune_steps=9).init(tiny("flow")), "finetune_steps 9"),
        (lambda: ALGO.init(tiny("flow").split(2)), "fine-tuned already"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(UserError, match=words):
        make()
