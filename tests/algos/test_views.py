"""Policies that learn to see: pictures are kept as bytes, changed once per rollout and encoded once per use."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from noisepilot.algos import onpolicy
from noisepilot.algos.dppo import DPPO
from noisepilot.algos.reinflow import NoiseMLP, ReinFlow
from noisepilot.algos.returns import Ends
from noisepilot.algos.rollout import Rollout
from noisepilot.errors import UserError
from noisepilot.policies import CriticMLP, Stochastic

from ..policies.toys import generator
from ..policies.vision.toys import CAMERA, VIT, encodings, scene, seeing
from .toys import CRITIC

SHARED = {"epochs": 2, "minibatch": 12, "critic": CRITIC, "target_kl": 1e9, "scale_rewards": False}
METHODS = {
    "dppo": DPPO(explore=Stochastic(min_std=0.2), **SHARED),
    "dppo, frozen steps": DPPO(explore=Stochastic(min_std=0.2), finetune_steps=2, **SHARED),
    "reinflow": ReinFlow(repeats=1, noise=NoiseMLP((8,)), bc_coef=0.1, **SHARED),
}
D, N = 3, 4


@pytest.fixture(params=METHODS)
def algo(request):
    return METHODS[request.param]


def rollout_of(algo, state, g, decisions=D, slots=N, reward=None):
    """Decisions on random pictures; the second slot is cut off after the first."""
    scenes = [scene(slots, d)[0] for d in range(decisions + 1)]
    scenes = [
        {k: v.to(v.dtype if v.dtype == torch.uint8 else state.policy.dtype) for k, v in s.items()} for s in scenes
    ]
    made = [algo.act(state, obs, g) for obs in scenes[:-1]]
    extras = {name: torch.stack([kept[name] for _, kept in made]) for name in made[0][1]}
    following = {name: torch.stack([s[name] for s in scenes[1:]]) for name in scenes[0]}
    rewards = torch.stack([action[..., 0].sum(1) for action, _ in made])
    never, cut = torch.zeros(decisions, slots, dtype=torch.bool), torch.zeros(decisions, slots, dtype=torch.bool)
    cut[0, 1] = True
    return Rollout(extras, following, rewards, Ends(never, cut))


def started(algo, dtype=torch.float64, **changes):
    policy = seeing(**changes).to(dtype)
    state, g = algo.init(policy), generator(3)
    return state, rollout_of(algo, state, g), g


def first(algo, state, decisions):
    return algo.minibatch_of(decisions, torch.arange(algo.samples(decisions)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_old_and_new_likelihoods_are_of_the_same_changed_pictures(algo, dtype, tolerance):
    state, rollout, g = started(algo, dtype)
    decisions = algo.prepare(state, rollout, g)
    part = first(algo, state, decisions).parts(None)[0]
    assert algo.log_ratio(state, part).abs().max() < tolerance
    recorded = rollout.extras["log_prob"].flatten(0, 1)
    assert (recorded - decisions.log_prob).abs().max() > 1e-4  # they were changed


def test_without_changes_the_recorded_likelihoods_stand(algo):
    state, rollout, g = started(algo, encoder=replace(VIT, shift=0))
    decisions = algo.prepare(state, rollout, g)
    assert torch.equal(decisions.log_prob, rollout.extras["log_prob"].flatten(0, 1))
    assert algo.log_ratio(state, first(algo, state, decisions).parts(None)[0]).abs().max() < 1e-12


def test_the_audit_sees_pictures_that_are_others(algo):
    state, rollout, g = started(algo)
    rollout.extras["obs/" + CAMERA].fill_(7)
    with pytest.raises(UserError, match="ratio audit failed"):
        algo.update(state, rollout, g)


def test_pictures_stay_bytes(algo):
    state, rollout, g = started(algo)
    decisions = algo.prepare(state, rollout, g)
    pictures = [v for v in (*decisions.extras.values(), *decisions.views.obs.values()) if v.dim() == 5]
    assert pictures
    assert all(v.dtype == torch.uint8 for v in pictures)


def test_every_gradient_step_encodes_a_decision_once_per_network(algo):
    state, rollout, g = started(algo)
    with encodings() as calls:
        decisions = algo.prepare(state, rollout, g)
    # The critic: every decision, the slot that was cut off, the last row. The actor: for the audit, for old log-probs.
    total, whose = D * N, Counter()
    for encoder, count in calls:
        whose[encoder] += count
    assert whose == {state.critic.encoder: total + N + 1, state.policy.network.encoder: 2 * total}
    rows = next(algo.minibatches(decisions, g))
    batch = algo.minibatch_of(decisions, rows)
    different = int(torch.count_nonzero(batch.multiplicity(total)))
    with encodings() as calls:
        algo._step(state, batch, decisions, metrics := onpolicy.defaultdict(list))
    frozen = {state.base.network.encoder: different} if isinstance(algo, ReinFlow) else {}  # its distance to the base
    expected = {state.critic.encoder: different, state.policy.network.encoder: different, **frozen}
    assert dict(calls) == expected
    assert len(calls) == len(expected)
    assert metrics["approx_kl"][0].abs() < 1e-9


def test_parts_of_a_minibatch_add_up_to_the_same_gradient(algo):
    grads = []
    for size in (None, 1, 5):
        method = replace(algo, micro_batch=size)
        state, rollout, _ = started(method)
        decisions = method.prepare(state, rollout, generator(5))
        rows = next(method.minibatches(decisions, generator(6)))
        method._step(state, method.minibatch_of(decisions, rows), decisions, onpolicy.defaultdict(list))
        trained = [p for o in state.optimizers().values() for group in o.param_groups for p in group["params"]]
        grads.append([p.grad for p in trained if p.grad is not None])
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            assert (a - b).abs().max() < 1e-12


def test_both_encoders_learn(algo):
    state, rollout, g = started(algo)
    before = [[p.clone() for p in e.parameters()] for e in (state.policy.network.encoder, state.critic.encoder)]
    algo.update(state, rollout, g)
    for encoder, old in zip((state.policy.network.encoder, state.critic.encoder), before, strict=True):
        assert not any(torch.equal(p, q) for p, q in zip(encoder.parameters(), old, strict=True))


LEARNING = {"epochs": 4, "critic": CriticMLP((32, 32, 32)), "actor_lr": 1e-3, "critic_lr": 3e-3, "clip": 0.1}
LEARNERS = [
    DPPO(explore=Stochastic(min_std=0.3), gamma_denoise=0.9, minibatch=512, **LEARNING),
    ReinFlow(
        repeats=1,
        minibatch=128,
        noise=NoiseMLP((16,), max_std=0.4),
        entropy_coef=0.0,
        log_prob_range=(-10.0, 10.0),
        **LEARNING | {"actor_lr_min": None},
    ),
]


@pytest.mark.parametrize("algo", LEARNERS, ids=["dppo", "reinflow"])
def test_reward_teaches_to_see(algo):
    """The action shall be where the bright square is; a policy that does not see it pays the targets' variance."""
    state, g, slots = algo.init(seeing(encoder=replace(VIT, shift=0))), generator(0), 128
    for i in range(60):
        obs, target = scene(slots, i)
        action, extras = algo.act(state, obs, g)
        reward, ended = -(action - target).square().sum((1, 2))[None], torch.ones(1, slots, dtype=torch.bool)
        kept, following = ({name: value[None] for name, value in values.items()} for values in (extras, obs))
        algo.update(state, Rollout(kept, following, reward, Ends(ended, ~ended)), g)
    obs, target = scene(256, 999)
    error = (state.policy.act(obs, generator=g) - target).square().mean()
    assert error < 0.6 * target.var()
