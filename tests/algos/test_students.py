"""Students of every kind: they learn their teacher's modes, see by its eyes, and refuse what they cannot learn."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.distill import METHODS, Distill, named
from noisepilot.algos.students import Coupled, couple
from noisepilot.errors import UserError
from noisepilot.policies import MLP, CosinePath, MeanFlow, PolicyConfig, Sampler, Shortcut, Transformer, UNet

from ..policies.test_modes import NETWORK, two_modes
from ..policies.toys import generator, jolt, observe, tiny
from ..policies.vision.toys import scene, seeing

STEP = MLP(hidden=(12, 12, 12), time_dim=4, step_size=True)


@pytest.fixture(scope="module")
def teacher():
    """Acts near -0.7 and, twice as often, 0.7."""
    return two_modes(PolicyConfig(NETWORK, CosinePath(10), Sampler(5, eta=0.0)), steps=500)


def student_of(policy, name, **settings):
    """A distillation about to begin: settings, teacher and state."""
    torch.manual_seed(0)
    distill = Distill(method=named(name), **settings)
    teacher = distill.teacher(policy)
    return distill, teacher, distill.init(teacher)


@pytest.mark.parametrize("name", [*METHODS, "ctm:5"])
def test_both_modes_and_nothing_more_between(teacher, name):
    fit = BC(grad_steps=300, batch=256, lr=5e-3, lr_final=1e-4, ema_decay=0.95)
    distill, taught_by, state = student_of(teacher, name, fit=fit)
    g = generator(3)
    for _ in range(fit.grad_steps):
        distill.update(state, taught_by, torch.zeros(256, 1), g)
    student, noise, obs = state.averaged(), teacher.noise(4000, generator(1)), {"state": torch.zeros(4000, 1, 1)}
    assert student.config.sampler.steps == distill.method.steps
    shares = []
    for policy in (teacher, student):
        action = policy.act(obs, noise).flatten()
        low, high = (((action - mode).abs() < 0.3).float().mean().item() for mode in (-0.7, 0.7))
        shares.append((low, high, (action.abs() < 0.3).float().mean().item()))
    for theirs, own in zip(*shares, strict=True):
        assert abs(theirs - own) < 0.1, (name, shares)
    error = (student.act(obs, noise) - teacher.act(obs, noise)).square().mean()
    assert error < 0.03  # without pairing by noise it would be near 0.9


@pytest.mark.parametrize("network", [UNet((8, 16), groups=4, last_groups=4, time_dim=8), Transformer(1, 2, 8)])
def test_every_network_learns_by_every_method(network):
    policy = tiny(network=network, horizon=4, dtype=torch.float32)
    for name in METHODS:
        distill, teacher, state = student_of(policy, name)
        before = [p.clone() for p in state.policy.network.parameters()]
        loss = distill.update(state, teacher, torch.randn(4, policy.feature_dim), generator())
        assert torch.isfinite(loss)
        assert any((a != b).any() for a, b in zip(before, state.policy.network.parameters(), strict=True))


def test_reflow_is_flow_matching_between_coupled_ends():
    policy = tiny("ddim")
    distill, teacher, state = student_of(policy, "reflow")
    seen = teacher.context(torch.randn(4, policy.feature_dim, dtype=torch.float64))
    losses = distill.method.lesson(state, teacher, seen, generator(5))
    g = generator(5)
    noise, action = couple(teacher, seen, g)
    points = distill.method.objective.draw(state.policy, action, g)
    context = state.policy.context(seen.features)
    expected = state.policy.loss(context, action, points.t, noise)
    assert (losses(context, slice(None)) - expected).abs().max() < 1e-14
    loose = Coupled(paired=False).lesson(state, teacher, seen, generator(5))
    expected = state.policy.loss(context, action, points.t, points.noise)
    assert (loose(context, slice(None)) - expected).abs().max() < 1e-14


@pytest.mark.parametrize("name", ["consistency", "ctm"])
def test_a_student_that_steps_as_its_teacher_does_has_nothing_to_learn(name):
    """A teacher of constant velocity: any jump of the same velocity ends on its chain."""
    policy = tiny("flow", sampler=Sampler(4, 0.0, None))
    distill, teacher, state = student_of(policy, name)
    for network in (teacher.network, state.policy.network):
        for parameter in network.parameters():
            parameter.data.zero_()
        list(network.parameters())[-1].data.fill_(0.3)  # the last layer's bias
    seen = teacher.context(torch.randn(64, policy.feature_dim, dtype=torch.float64))
    context = state.policy.context(seen.features)
    assert distill.method.lesson(state, teacher, seen, generator())(context, slice(None)).max() < 1e-12
    list(state.policy.network.parameters())[-1].data.fill_(0.4)
    assert distill.method.lesson(state, teacher, seen, generator())(context, slice(None)).max() > 1e-3


def test_a_flow_begins_where_the_flow_that_teaches_it_is():
    flow = tiny("flow", n_obs_steps=1)
    same = Distill(method=named("reflow")).student(flow)
    assert same.network is not flow.network
    for a, b in zip(same.network.parameters(), flow.network.parameters(), strict=True):
        assert (a == b).all()
    fresh = Distill(method=named("reflow")).student(tiny("ddim", n_obs_steps=1))
    assert (next(fresh.network.parameters()) != next(flow.network.parameters())).any()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tuned", [False, True])
def test_students_see_by_their_teachers_eyes(name, tuned):
    policy = seeing()
    if tuned:
        if name == "onedp":
            return
        policy = policy.split(2)
        jolt(policy.network)
    distill, teacher, state = student_of(policy, name, fit=BC(grad_steps=4, ema_every=1))
    obs, _ = scene(8, 0)
    with torch.no_grad():
        seen = teacher.encode(obs)
    assert (seen.frozen is not None) == tuned
    assert (state.policy.encode(obs).features == seen.features).all()
    head = state.policy.network.get_parameter("trunk.0.weight")
    before = head.clone()
    for _ in range(2):
        distill.update(state, teacher, seen.features, generator(), seen.frozen)
    assert (head != before).any()
    for student in (state.policy, state.averaged()):
        assert (student.encode(obs).features == seen.features).all()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("onedp", {"tuned_from": 0.5}, "the last steps of this one were tuned"),
        ("onedp", {"network": STEP, "objective": MeanFlow()}, "trained by MeanFlow"),
        ("onedp", {"network": STEP, "objective": Shortcut()}, "trained by Shortcut"),
        ("ctm:3", {}, "steps 3 must divide the teacher's 4"),
    ],
)
def test_what_a_teacher_cannot_teach(name, changes, words):
    with pytest.raises(UserError, match=words):
        Distill(method=named(name)).student(tiny("flow", **changes))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reflo", "did you mean 'reflow'"),
        ("regression:2", "one step"),
        ("consistency:2", "set until to any"),
        ("reflow:0", "reflow:2"),
    ],
)
def test_names_that_mean_nothing(name, words):
    with pytest.raises(UserError, match=words):
        named(name)


def test_a_step_count_is_all_that_a_name_changes():
    assert named("shortcut:4") == replace(METHODS["shortcut"], steps=4)
    assert named("regression:1") == METHODS["regression"]


def test_regression_from_a_flow_starts_as_its_one_step():
    teacher = Distill().teacher(tiny("flow"))
    student = Distill().student(teacher)
    assert (student.config.predicts, student.config.sampler.steps) == ("velocity", 1)
    obs, noise = observe(teacher), teacher.noise(4, generator(2))
    one_step = teacher.with_sampler(teacher.config.sampler.without_noise(1))
    assert (student.act(obs, noise) - one_step.act(obs, noise)).abs().max() < 1e-12
