"""Chains: sampling and scoring agree, noise decides everything, frozen and tuned networks keep to their steps."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.algos.audit import audit_ratio
from noisepilot.errors import UserError
from noisepilot.policies import Chain, LinearPath, Policy, Sampler, Stochastic

from .toys import KINDS, generator, jolt, observe, tiny

STEPS = [(k, tuned) for k in range(1, 7) for tuned in range(1, k + 1)]
EXPLORE = [Stochastic(), Stochastic(0.4, 0.05, 0.1), Stochastic(0.0, 0.1, 0.1)]


def recorded(policy: Policy, start: int, explore: Stochastic, batch: int = 4):
    context = policy.encode(observe(policy, batch))
    noise = policy.noise(batch, generator(3), steps=True)
    return context, policy.sample(context, noise, start=start, stochastic=explore)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_log_probs_equal_scored_ones(kind, dtype):
    flow_sde = [Stochastic(0.7, 0.05, 0.05, transition="sde")] if kind.startswith("flow") else []
    for explore, (steps, tuned) in itertools.product([*EXPLORE, *flow_sde], STEPS):
        policy = tiny(kind, steps=steps, dtype=dtype).split(tuned)
        jolt(policy.network)
        with torch.no_grad():
            context, chain = recorded(policy, steps - tuned, explore)
            score = policy.score(context, chain, explore)
        assert chain.log_prob is not None
        assert score.dtype == dtype
        assert score.shape == chain.log_prob.shape == (4, tuned, 3, 2)
        if dtype == torch.float64:
            assert (score - chain.log_prob).abs().max() < 1e-12
        audit_ratio((score - chain.log_prob).mean((2, 3)))  # over the chunk, as DPPO does


def test_log_prob_is_the_normal_density():
    explore = Stochastic(1.0, 0.2, 0.3)
    policy = tiny("ddpm", steps=6)
    context, chain = recorded(policy, 0, explore)
    transitions = policy.transitions(explore)
    times = policy.network.time_embedding(policy.config.path.time_input(torch.from_numpy(transitions.t[:-1])))
    assert chain.log_prob is not None
    for k in range(6):
        output = policy.network(chain.x[:, k], times[k].expand(4, -1), context.condition)
        mean = transitions.mean(output, chain.x[:, k], k)
        normal = torch.distributions.Normal(mean, max(float(transitions.std[k]), 0.3))
        assert (normal.log_prob(chain.x[:, k + 1]) - chain.log_prob[:, k]).abs().max() < 1e-11
        drawn = mean + max(float(transitions.std[k]), 0.2) * chain.noise[:, k + 1].clamp(-3, 3)
        assert (drawn - chain.x[:, k + 1]).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tuned", [1, 2, 4])
def test_each_network_acts_on_its_own_steps(kind, tuned, monkeypatch):
    policy = tiny(kind, steps=4).split(tuned)
    jolt(policy.network)
    seen: dict[str, list[int]] = {"prefix": [], "network": []}
    for name in ("prefix", "network")[tuned == 4 :]:
        watch(monkeypatch, getattr(policy, name), seen[name])
    obs = observe(policy)
    policy.act(obs, policy.noise(4, generator()))
    assert (seen["prefix"], seen["network"]) == (list(range(4 - tuned)), list(range(4 - tuned, 4)))
    context, chain = recorded(policy, 4 - tuned, Stochastic())
    assert (seen["prefix"], seen["network"]) == (2 * list(range(4 - tuned)), 2 * list(range(4 - tuned, 4)))

    calls = {"prefix": 0, "network": 0}
    for name, module in policy.named_children():
        if name in calls:
            module.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    policy.score(context, chain, Stochastic()).sum().backward()
    assert calls == {"prefix": 0, "network": 1}
    assert all(p.grad is None and not p.requires_grad for n, p in policy.named_parameters() if n.startswith("prefix"))
    assert all(p.grad is not None for p in policy.network.parameters())


def watch(monkeypatch, module, seen: list[int]) -> None:
    fold = module.fold

    def watched(times, condition):
        step = fold(times, condition)
        return lambda k, x: (seen.append(k), step(k, x))[1]

    monkeypatch.setattr(module, "fold", watched, raising=True)


def test_the_frozen_prefix_is_the_base():
    base = tiny("ddpm", steps=6)
    tuned = base.split(2)
    obs, noise = observe(base), base.noise(4, generator())
    assert (tuned.act(obs, noise) == base.act(obs, noise)).all()
    jolt(tuned.network)
    context, chain = base.encode(obs), base.sample(base.encode(obs), noise)
    after = tuned.sample(tuned.encode(obs), noise)
    assert (after.x[:, :5] == chain.x[:, :5]).all()
    assert not torch.allclose(after.x[:, 5], chain.x[:, 5])
    assert (base.sample(context, noise).x == chain.x).all()  # the base does not share the tuned weights


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.data())
def test_the_tuned_part_starts_at_k_minus_finetune_steps(steps, data):
    tuned = data.draw(st.integers(1, steps))
    policy = tiny("flow", sampler=Sampler(steps, 0.0), path=LinearPath())
    assert policy.split(tuned).first_tuned == steps - tuned


@pytest.mark.parametrize("kind", KINDS)
def test_same_noise_same_chunk_alone_or_in_a_batch(kind):
    policy = tiny(kind)
    obs, noise = observe(policy, 5), policy.noise(5, generator())
    action = policy.act(obs, noise)
    assert action.shape == (5, 3, 2)
    assert (policy.act(obs, noise) == action).all()
    assert (policy.act(obs, generator=generator(7)) == policy.act(obs, generator=generator(7))).all()
    for row in range(5):
        alone = policy.act({k: v[row : row + 1] for k, v in obs.items()}, noise[row : row + 1])
        assert (alone - action[row : row + 1]).abs().max() < 1e-12
    assert not torch.allclose(policy.act(obs, policy.noise(5, generator(1))), action)


@pytest.mark.parametrize("kind", KINDS)
def test_acting_and_sampling_walk_the_same_chain(kind):
    policy = tiny(kind).split(2)
    jolt(policy.network)
    obs, noise = observe(policy), policy.noise(4, generator())
    chain = policy.sample(policy.encode(obs), noise, start=1)
    physical = policy.normalizer.denormalize("action", chain.action)
    assert (physical - policy.act(obs, noise)).abs().max() < 1e-13
    assert chain.log_prob is None
    assert chain.x.shape[1] == policy.config.sampler.steps


def test_a_chain_checks_its_lengths():
    x = torch.zeros(2, 4, 3, 1)
    with pytest.raises(ValueError, match="4 latents need 3"):
        Chain(x, torch.zeros(2, 4, 3, 1), x, 0)


def test_step_noise_is_bounded():
    policy = tiny("ddpm")
    noise = policy.noise(4, generator())
    noise[:, 1:] *= 100
    bounded = torch.cat([noise[:, :1], noise[:, 1:].clamp(-3, 3)], 1)
    assert (policy.act(observe(policy), noise) == policy.act(observe(policy), bounded)).all()


def test_another_sampler_hands_over_to_the_tuned_network_at_the_same_time(monkeypatch):
    """Tuned for 10 of 20 steps, walked in 5: the times .15 and .35 are the base's, .55, .75, .95 the tuned one's."""
    tuned = tiny("ddpm").split(10)
    jolt(tuned.network)
    five = tuned.with_sampler(Sampler(5, eta=0.0))
    assert tuned.config.tuned_from == 0.5
    assert (tuned.first_tuned, five.first_tuned) == (10, 2)
    assert tuned.config.sampler.steps == 20
    seen = {"prefix": [], "network": []}
    for name in seen:
        watch(monkeypatch, getattr(five, name), seen[name])
    obs, noise = observe(five), five.noise(4, generator())
    action = five.act(obs, noise)
    assert seen == {"prefix": [0, 1], "network": [2, 3, 4]}
    jolt(tuned.network)
    assert not torch.allclose(five.act(obs, noise), action)  # the weights are shared


def bad_obs(policy, **changes):
    return {k: v for k, v in {**observe(policy), **changes}.items() if v is not None}


MISTAKES = {
    "finetune_steps 5 .* steps 4": lambda p: p.split(5),
    "finetune_steps 0 .* steps 4": lambda p: p.split(0),
    "fine-tuned already": lambda p: p.split(2).split(1),
    "horizon 1 .* n_action_steps 2": lambda p: tiny(horizon=1),
    "n_obs_steps must": lambda p: tiny(n_obs_steps=0),
    "observation 'state' is missing": lambda p: p.act({"other": torch.zeros(4, 2, 3)}),
    r"observation 'state' has shape \(4, 2, 9\)": lambda p: p.act({"state": torch.zeros(4, 2, 9)}),
    r"observation 'state' has shape \(4, 1, 3\)": lambda p: p.act({"state": torch.zeros(4, 1, 3)}),
    r"noise has shape \(4, 3, 3, 2\), expected \(B, 5, 3, 2\)": lambda p: p.act(observe(p), p.noise(4)[:, :3]),
    r"noise has shape \(4, 5, 2, 2\)": lambda p: p.act(observe(p), p.noise(4)[:, :, :2]),
    r"noise has shape \(4, 5, 3, 1\)": lambda p: p.act(observe(p), p.noise(4)[..., :1]),
    r"noise has shape \(4, 1, 3, 2\)": lambda p: tiny("flow").sample(
        p.encode(observe(p)), p.noise(4, steps=False), stochastic=Stochastic()
    ),
    "sampler steps 21 .* levels 20": lambda p: p.with_sampler(Sampler(21)),
    "sampler steps 22 .* levels 20": lambda p: tiny(steps=22),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named_in_one_line(message):
    with pytest.raises(UserError, match=message) as error:
        MISTAKES[message](tiny("ddpm", steps=4))
    assert "\n" not in str(error.value)
