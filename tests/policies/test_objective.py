"""Training targets: special cases that must coincide, and what each objective's minimum does when it is sampled."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.errors import UserError
from noisepilot.policies import (
    MLP,
    Consistency,
    CosinePath,
    LinearPath,
    Matching,
    MeanFlow,
    Sampler,
    Shortcut,
    TimeDraw,
)
from noisepilot.policies.objective import Objective, Points, jump

from .toys import generator, tiny

STEP = MLP(hidden=(12, 12, 12), time_dim=4, activation="mish", step_size=True)
FLOWS = {
    "shortcut": {"network": STEP, "objective": Shortcut()},
    "mean flow": {"network": STEP, "objective": MeanFlow()},
    "consistency": {"objective": Consistency()},
}


def batch(policy, rows=6):
    g = generator(3)
    context = policy.context(torch.randn(rows, policy.feature_dim, generator=g, dtype=policy.dtype))
    data, noise = torch.randn(2, rows, 3, 2, generator=g, dtype=policy.dtype)
    return context, data, torch.rand(rows, generator=g, dtype=policy.dtype), noise


@pytest.mark.parametrize("objective", [Shortcut(delta=0.0), MeanFlow()])
def test_without_a_step_it_is_flow_matching(objective):
    policy = tiny("flow", network=STEP, objective=objective)
    context, data, t, noise = batch(policy)
    special = objective.loss_at(policy, context, data, Points(t, noise, torch.zeros_like(t)))
    plain = policy.loss(context, data, t, noise)
    assert (special - plain).abs().max() < 1e-14


def test_mean_flow_target_is_the_derivative_along_the_path():
    """Against central differences of d * u(x_t, t, s - t) in t, which the identity equals the negative velocity."""
    policy = tiny("flow", network=STEP, objective=MeanFlow())
    context, data, _, noise = batch(policy)
    t, d, h = (torch.full((6,), v, dtype=torch.float64) for v in (0.3, 0.4, 1e-5))

    def average(t, d):
        wide = t[:, None, None]
        return policy.predict(context, (1 - wide) * noise + wide * data, t, d)

    slope = (average(t + h, d - h) - average(t - h, d + h)) / (2 * h)[:, None, None]
    target = data - noise + 0.4 * slope
    expected = (average(t, d) - target).square().mean((1, 2))
    assert (policy.config.objective.loss_at(policy, context, data, Points(t, noise, d)) - expected).abs().max() < 1e-6


def test_shortcut_agrees_with_two_steps_of_half_the_size():
    policy = tiny("flow", network=STEP, objective=Shortcut(delta=0.0))
    context, data, _, noise = batch(policy)
    t, d = torch.full((6,), 0.25, dtype=torch.float64), torch.full((6,), 0.5, dtype=torch.float64)
    x = 0.75 * noise + 0.25 * data
    half = d / 2
    middle = x + 0.25 * policy.predict(context, x, t, half)
    end = middle + 0.25 * policy.predict(context, middle, t + half, half)
    expected = (policy.predict(context, x, t, d) - (end - x) / 0.5).square().mean((1, 2))
    loss = policy.config.objective.loss_at(policy, context, data, Points(t, noise, d))
    assert (loss - expected).abs().max() < 1e-14


def test_a_consistency_model_ends_where_it_is_at_time_one():
    policy = tiny("flow", objective=Consistency())
    context, data, _, _ = batch(policy)
    one = torch.ones(6).double()
    assert (jump(policy, context, data, one, one) - data).abs().max() < 1e-14


def test_bounds_are_not_the_targets_of_gradients():
    """The bootstrapped half of a loss has no gradient through its target."""
    policy = tiny("flow", network=STEP, objective=Shortcut(bootstrap=1.0))
    context, data, _, _ = batch(policy)
    objective: Objective = policy.config.objective
    target = objective._two_halves(policy, context, data, torch.zeros(6).double(), torch.full((6,), 0.5).double())
    assert not target.requires_grad


@pytest.mark.parametrize("kind", ["diffusion", *FLOWS, "flow"])
def test_every_objective_learns_two_modes(kind):
    """Actions are +0.7 or -0.7 by chance: samples lie at the modes, not between them.

    The map that one-step methods learn jumps, so after a few hundred steps more of theirs lie around the jump. A plain
    flow in one step gives their mean.
    """
    changes = {"horizon": 1, "n_action_steps": 1, "n_obs_steps": 1, "scale": False, "dtype": torch.float32}
    wide = MLP(hidden=(64, 64, 64), time_dim=8, activation="mish")
    if kind == "diffusion":
        policy = tiny("ddpm", network=wide, **changes)
    elif kind == "flow":
        policy = tiny("flow", network=wide, sampler=Sampler(8, 0.0, None, clip_mean=1.0), **changes)
    else:
        settings = FLOWS[kind]
        network = replace(wide, step_size=settings.get("network") is STEP)
        steps = Sampler({"mean flow": 1, "shortcut": 4, "consistency": 2}[kind], 0.0, None, clip_mean=1.0)
        if kind == "consistency":
            steps = replace(steps, transition="renoise")
        policy = tiny("flow", **changes, **{**settings, "network": network, "sampler": steps})
    algo = BC(grad_steps=900, batch=256, lr=3e-3, lr_final=1e-4, ema_decay=0.98, ema_every=1)
    state, g = algo.init(policy), generator(1)
    for _ in range(algo.grad_steps):
        sign = torch.randint(2, (256, 1, 2), generator=g)[..., :1].expand(-1, -1, 2) * 2.0 - 1
        algo.update(state, {"state": torch.zeros(256, 1, 3)}, 0.7 * sign, g)
    learned = state.averaged()
    action = learned.act({"state": torch.zeros(1000, 1, 3)}, generator=generator(2))[:, 0]
    distance = (action.abs() - 0.7).abs().amax(1)
    assert (distance < 0.25).float().mean() > (0.5 if kind in FLOWS else 0.85), kind
    if kind == "flow":
        once = learned.with_sampler(replace(learned.config.sampler, steps=1))
        mean = once.act({"state": torch.zeros(1000, 1, 3)}, generator=generator(2))
        assert mean.abs().mean() < 0.35  # at the modes it would be 0.7
    assert 0.35 < (action[:, 0] > 0).float().mean() < 0.65, kind


def test_times_are_drawn_as_asked():
    g = generator(0)
    for draw, mean in ((TimeDraw(), 0.5), (TimeDraw("beta"), 0.999 * 0.4), (TimeDraw("logit_normal", mean=0.4), 0.582)):
        t = draw(200_000, g, torch.device("cpu"))
        assert t.min() >= 0
        assert t.max() <= 1
        assert abs(t.mean().item() - mean) < 3e-3, draw


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": Shortcut()}, "step_size"),
        ({"objective": MeanFlow(), "network": STEP, "predicts": "data"}, "velocity"),
        ({"objective": MeanFlow(), "network": STEP, "path": CosinePath(4), "predicts": "eps"}, "LinearPath"),
        ({"objective": Consistency(), "network": STEP}, "Consistency"),
        ({"objective": Matching(), "network": STEP}, "step size"),
    ],
)
def test_objectives_refuse_what_they_cannot_train(changes, words):
    with pytest.raises(UserError, match=words):
        tiny("flow", **changes)


def test_stretched_grid_reaches_one_a_step_early():
    assert LinearPath(shown="stretched").inputs(4).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert LinearPath().inputs(4).tolist() == [0, 0.25, 0.5, 0.75]
