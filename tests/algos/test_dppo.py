"""DPPO's parts by hand, and its update as a whole, without a simulator (float64 unless said)."""

import itertools
import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from noisepilot.algos import ppo
from noisepilot.algos.audit import audit_ratio, audit_start
from noisepilot.algos.dppo import DPPO
from noisepilot.algos.ppo import value_error
from noisepilot.errors import UserError
from noisepilot.policies import Stochastic

from ..policies.toys import KINDS, generator, jolt, observe, tiny
from .toys import CRITIC, rollout_of, weights

ALGO = DPPO(finetune_steps=3, critic=CRITIC, minibatch=30, epochs=2, actor_lr=1e-3)


def started(algo: DPPO = ALGO, kind: str = "ddpm", **changes):
    """State, one rollout and its decisions."""
    state = algo.init(tiny(kind, **{"steps": 4, **changes}))
    rollout = rollout_of(algo, state, generator())
    return state, rollout, algo.prepare(state, rollout, torch.Generator())


def pairs(algo, decisions, count: int | None = None, seed: int = 0):
    total = decisions.log_prob.shape[0] * decisions.log_prob.shape[1]
    return algo.minibatch_of(decisions, torch.randperm(total, generator=generator(seed))[:count])


def test_clip_range_by_hand():
    algo = DPPO(clip=0.01, clip_noisiest=0.001, clip_rate=3.0)
    u = [0, 1 / 3, 2 / 3, 1]
    expected = [0.001 + 0.009 * (math.exp(3 * v) - 1) / (math.exp(3) - 1) for v in u]
    assert algo.clip_range(4).tolist() == pytest.approx(expected, rel=1e-12)
    assert algo.clip_range(1).tolist() == [0.01]
    assert DPPO(clip=0.02).clip_range(5).tolist() == pytest.approx([0.02] * 5, rel=1e-12)


def test_credit_by_hand():
    algo = DPPO(gamma_denoise=0.5)
    advantage, i = torch.tensor([1.0, 2, 3], dtype=torch.float64), torch.tensor([0, 1, 2])
    assert algo.credit(advantage, i, 3).tolist() == pytest.approx([-1 * 0.25, 0, 1], abs=1e-7)
    assert algo.credit(torch.full_like(advantage, 4.0), i, 3).tolist() == [0, 0, 0]
    clamped = replace(algo, advantage_quantiles=(0.25, 0.75)).credit(advantage, i, 3)
    assert clamped.tolist() == pytest.approx([-0.5 * 0.25, 0, 0.5], abs=1e-7)


def test_pairs_join_decisions_and_steps():
    _, _, decisions = started()
    batch = ALGO.minibatch_of(decisions, torch.tensor([0, 1, 2, 3, 59]))
    assert batch.decision.tolist() == [0, 0, 0, 1, 19]
    assert batch.i.tolist() == [0, 1, 2, 0, 2]


def test_the_start_of_an_update_has_no_ratio():
    state, _, decisions = started()
    loss, sums = ALGO.policy_loss(state, pairs(ALGO, decisions))
    assert sums["ratio"] / len(loss) == pytest.approx(1, abs=1e-12)
    assert sums["clip_fraction"] == 0
    assert abs(sums["approx_kl"]) < 1e-12


def test_zero_advantage_gives_zero_policy_gradient():
    state, _, decisions = started()
    jolt(state.policy.network)
    batch = pairs(ALGO, decisions)
    loss, _ = ALGO.policy_loss(state, replace(batch, advantage=torch.zeros_like(batch.advantage)))
    loss.mean().backward()
    assert all((p.grad == 0).all() for p in state.policy.network.parameters())


def test_first_policy_gradient_is_reinforce():
    """At ratio 1 the surrogate's gradient is that of -A times the mean log-prob of the executed, unclamped elements."""
    algo = replace(ALGO, log_prob_range=(-1e9, 1e9))
    state, _, decisions = started(algo)
    batch = pairs(algo, decisions)
    network = list(state.policy.network.parameters())
    ours = torch.autograd.grad(algo.policy_loss(state, batch)[0].mean(), network)
    context = state.policy.context(decisions.features)
    x = decisions.latents
    log_prob = torch.stack(
        [
            state.policy.log_prob(context, x[:, i], x[:, i + 1], torch.full((len(x),), 1 + i), algo.explore)
            for i in range(3)
        ],
        1,
    )[batch.decision, batch.i, :2]
    expected = torch.autograd.grad((-batch.advantage * log_prob.mean((1, 2))).mean(), network)
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("rows", [3, 7, 10**9])
def test_micro_batches_add_up_to_the_same_gradient(rows, monkeypatch):
    grads = []
    for size in (10**9, rows):
        monkeypatch.setattr(ppo, "MICRO_BATCH", size)
        state, _, decisions = started()
        jolt(state.policy.network)
        batch = pairs(ALGO, decisions, 40)
        assert len(batch.parts(None)) == math.ceil(40 / size)
        ALGO._step(state, batch, decisions, defaultdict(list))
        grads.append([p.grad for m in (state.policy.network, state.critic) for p in m.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("value_clip", [None, 0.1])
def test_critic_by_multiplicity_equals_the_mean_over_pairs(value_clip):
    algo = replace(ALGO, value_clip=value_clip)
    state, _, decisions = started(algo)
    jolt(state.critic)
    batch = pairs(algo, decisions, 25)
    count = torch.bincount(batch.decision, minlength=20).double()
    assert len(count.unique()) > 2
    loss = algo.value_loss(state, decisions, count)
    ours = [p.grad for p in state.critic.parameters()]
    d = batch.decision
    error = value_error(state.critic(decisions.features[d]), decisions.returns[d], decisions.value[d], value_clip)
    expected = torch.autograd.grad(algo.value_coef * error.mean(), list(state.critic.parameters()))
    assert loss.item() == pytest.approx(error.mean().item(), rel=1e-12)
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_update_passes_its_audit_and_is_repeatable(kind, dtype):
    ends = []
    for _ in range(2):
        state = ALGO.init(tiny(kind, steps=4, dtype=dtype))
        before = weights(state.policy.network).clone()
        g = generator(3)
        for _ in range(2):
            metrics = ALGO.update(state, rollout_of(ALGO, state, g), g)
        assert all(math.isfinite(v) for v in metrics.values())
        assert not (weights(state.policy.network) == before).all()
        assert state.policy.prefix is not None
        assert (weights(state.policy.prefix) == before).all()
        ends.append((weights(state.policy.network), weights(state.critic), tuple(metrics.values())))
    (actor, critic, metrics), (actor2, critic2, metrics2) = ends
    assert (actor == actor2).all()
    assert (critic == critic2).all()
    assert metrics == metrics2
    assert state.iteration == 2


@pytest.mark.parametrize("tampered", [Stochastic(1.0, 0.1, 0.11), Stochastic(0.9, 0.1, 0.1)])
def test_audit_stops_a_tampered_scorer(tampered):
    state, rollout, _ = started()
    with pytest.raises(UserError, match="ratio audit failed"):
        replace(ALGO, explore=tampered).update(state, rollout, generator())


def test_audit_stops_another_network():
    state, rollout, _ = started()
    jolt(state.policy.network, 1e-4)
    with pytest.raises(UserError, match="ratio audit failed"):
        ALGO.update(state, rollout, generator())


def test_audit_ratio_tolerances():
    for dtype, small, large in ((torch.float64, 1e-13, 1e-11), (torch.float32, 1e-6, 1e-4)):
        audit_ratio(torch.full((3,), small, dtype=dtype))
        with pytest.raises(UserError, match="off by"):
            audit_ratio(torch.tensor([0, large], dtype=dtype))
        with pytest.raises(UserError, match="off by nan"):
            audit_ratio(torch.tensor([0, torch.nan], dtype=dtype))


def test_step_0_gate():
    base = tiny(steps=4)
    tuned = base.split(2)
    audit_start(base, tuned, observe(base), generator())
    jolt(tuned.network, 1e-3)
    with pytest.raises(UserError, match="step-0 gate failed"):
        audit_start(base, tuned, observe(base), generator())


def test_critic_warmup_leaves_the_actor_alone():
    algo = replace(ALGO, critic_warmup=1)
    state, rollout, _ = started(algo)
    actor, critic = weights(state.policy.network).clone(), weights(state.critic).clone()
    algo.update(state, rollout, generator())
    assert (weights(state.policy.network) == actor).all()
    assert not (weights(state.critic) == critic).all()
    algo.update(state, rollout_of(algo, state, generator()), generator())
    assert not (weights(state.policy.network) == actor).all()


@pytest.mark.parametrize(("target_kl", "steps"), [(1e9, 10), (1e-9, 2)])
def test_target_kl_stops_the_iteration(target_kl, steps, monkeypatch):
    """20 decisions of 3 steps are two minibatches; the first has ratio 1, the second does not."""
    algo = replace(ALGO, target_kl=target_kl, epochs=5, actor_lr=1e-2)
    state, rollout, _ = started(algo)
    count, step = itertools.count(1), state.critic_optimizer.step
    taken = []
    monkeypatch.setattr(state.critic_optimizer, "step", lambda: (taken.append(next(count)), step())[1])
    algo.update(state, rollout, generator())
    assert len(taken) == steps


@pytest.mark.parametrize(("steps", "tuned"), [(1, 1), (4, 1), (4, 4), (20, 7)])
@pytest.mark.parametrize("executed", [1, 3])
def test_any_steps_and_executed_actions(steps, tuned, executed):
    algo = replace(ALGO, finetune_steps=tuned, clip_noisiest=0.001)
    state = algo.init(tiny(steps=steps, n_action_steps=executed))
    action, extras = algo.act(state, observe(state.policy), generator())
    assert action.shape == (4, executed, 2)
    assert extras["latents"].shape == (4, tuned + 1, 3, 2)
    assert extras["log_prob"].shape == (4, tuned, executed, 2)
    expected = state.policy.normalizer.denormalize("action", extras["latents"][:, -1, :executed])
    assert (action == expected).all()
    metrics = algo.update(state, rollout_of(algo, state, generator()), generator())
    assert all(math.isfinite(v) for v in metrics.values())


def test_actions_beyond_the_executed_ones_do_not_count():
    state, _, decisions = started()
    latents = decisions.latents.clone()
    latents[:, -1, 2:] += 5  # the third action of the last latent is never an input
    changed = replace(decisions, extras={**decisions.extras, "latents": latents})
    loss, changed_loss = (ALGO.policy_loss(state, pairs(ALGO, d))[0] for d in (decisions, changed))
    assert (loss == changed_loss).all()


@pytest.mark.parametrize("timeout", ["bootstrap", "terminal", "leak"])
def test_what_follows_a_time_limit(timeout):
    """With lambda 0 the advantage is the TD error; the value of what follows depends on the reading of time limits."""
    algo = replace(ALGO, timeout=timeout, gae_lambda=0.0, scale_rewards=False, gamma=0.9)
    state, rollout, decisions = started(algo)
    ends = rollout.ends
    assert (ends.truncated & ~ends.terminated).any()
    with torch.no_grad():
        value = state.critic(rollout.extras["features"].flatten(0, 1)).view(5, 4)
        truly_next = {k: v.flatten(0, 1) for k, v in rollout.next_obs.items()}
        following = state.critic(state.policy.encode(truly_next).features).view(5, 4)
    if timeout == "leak":
        following[:-1] = value[1:]
    over = ends.ended if timeout == "terminal" else ends.terminated
    expected = rollout.reward + 0.9 * following * ~over - value
    assert (decisions.advantage.view(5, 4) - expected).abs().max() < 1e-12
    assert (decisions.returns - decisions.advantage - decisions.value).abs().max() < 1e-12


def test_state_resumes():
    state, _, _ = started()
    other = ALGO.init(tiny(steps=4))
    other.load_extra(state.extra())
    assert (other.scale.running == state.scale.running).all()
    assert (other.scale.mean, other.scale.var, other.iteration) == (state.scale.mean, state.scale.var, state.iteration)
