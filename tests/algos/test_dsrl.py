"""DSRL: targets by hand, what is stored and executed, resume of its state, and that it learns to choose a mode."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.dsrl import DSRL, DSRLSAC
from noisepilot.algos.noise_env import NoiseEnv
from noisepilot.algos.replay import Experience
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.policies import load_policy, save_policy
from noisepilot.policies.critic import QMLP
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.policies.noise_space import NoiseSpace

from ..policies.toys import generator, observe
from .toys_bandit import Fork, fork, train
from .toys_wrapped import base, line

SMALL = {"actor": GaussianMLP((32, 32), "tanh", "before"), "critic": QMLP((32, 32), "tanh", layer_norm="before")}
KINDS = {"na": DSRL, "sac": DSRLSAC}


def batch_of(policy, rows: int = 6, action: tuple[int, int] = (2, 2)) -> Experience:
    g = generator(3)
    return Experience(
        observe(policy, rows),
        torch.randn(rows, *action, generator=g),
        torch.randn(rows, 2, generator=g),
        torch.full((rows,), 2),
        torch.arange(rows) == 0,
        observe(policy, rows, seed=2),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_which_mode_is_good(kind):
    torch.manual_seed(0)
    algo = KINDS[kind](**SMALL, alpha=0.1, actor_lr=2e-3, critic_lr=2e-3, warmup=160, utd=0.6, batch=64)
    algo = replace(algo, space=NoiseSpace(bound=1.5))
    policy, env = Fork(), fork()
    before = evaluate(policy, fork(), range(60)).returns.mean()
    state = algo.init(policy, env.spec)
    train(algo, state, algo.wrap(policy, env, generator()), 1000, generator())
    after = evaluate(state.actor, fork(), range(60)).returns.mean()
    assert before < -1.5
    assert after > -0.7  # the base's better mode earns -0.4


def test_targets_and_distillation_by_hand():
    policy = base("ddim", n_obs_steps=1)
    algo = DSRL(**SMALL, gamma=0.9, alpha=0.3)
    state = algo.init(policy, line().spec)
    batch = batch_of(policy)
    following = state.actor.features(batch.next_obs)
    w = algo.distilled_noise(state, 6, generator(1))
    target, executed = algo.look_ahead(state, batch, following, w, generator(5))

    eps = torch.randn(6, 6, generator=generator(5))
    chosen, log_prob = state.actor.network.sample(following, eps)
    noise = chosen.detach().view(6, 1, 3, 2)
    action = policy.normalizer.normalize("action", policy.act(batch.next_obs, noise)[:, :2])
    q = state.target(following, action).min(0).values
    expected = batch.reward.sum(1) + 0.9 * ~batch.terminated * (q - 0.3 * log_prob)
    torch.testing.assert_close(target, expected.detach())
    again = policy.act(batch.obs, w.view(6, 1, 3, 2))[:, :2]
    torch.testing.assert_close(executed, policy.normalizer.normalize("action", again))

    features = state.actor.features(batch.obs)
    wanted = 0.5 * ((state.noise_q(features, w) - state.q(features, executed)) ** 2).mean(1).sum()
    loss = algo.noise_critic_step(state, features, w, executed)["noise_critic_loss"]
    torch.testing.assert_close(loss, wanted.detach())


def test_noise_of_the_distillation():
    policy, spec = base(), line().spec
    for changes, check in (
        ({}, lambda w: 0.9 < w.std() < 1.1 and w.abs().max() > 2.5),
        ({"distill_clip": 1.5}, lambda w: w.abs().max() == 1.5),
        ({"distill_uniform": 0.5}, lambda w: w[:500].abs().max() <= 2.0 and w[500:].abs().max() > 2.5),
    ):
        algo = DSRL(**SMALL, space=NoiseSpace(bound=2.0), **changes)
        assert check(2.0 * algo.distilled_noise(algo.init(policy, spec), 1000, generator()))
    rates = [sum(DSRL(noise_critic_rate=r)._distils(step) for step in range(40)) for r in (0.5, 1.0, 0.25)]
    assert rates == [20, 40, 10]
    assert DSRL(noise_critic_rate=0.01)._distils(0)


def test_both_execute_the_base_s_chunk_of_the_same_noise():
    """NA in the plain environment and SAC in the noise space do the same, and store chunks or noise."""
    policy = base()
    results = []
    for kind in (DSRL, DSRLSAC):
        torch.manual_seed(0)
        algo = kind(**SMALL, space=NoiseSpace(bound=1.2), warmup=0)
        env = algo.wrap(policy, line(), generator())
        state = algo.init(policy, env.spec)
        obs = {"state": env.reset([0, 1, 2])["state"][:, None].repeat(1, 2, 1).float()}
        action, extras = algo.act(state, obs, generator(4))
        step = env.step(action)
        results.append((step.reward, extras["action"], getattr(env, "last_chunk", extras["action"])))
    (reward, chunk, _), (same_reward, noise, same_chunk) = results
    torch.testing.assert_close(reward, same_reward)
    torch.testing.assert_close(chunk, same_chunk)
    assert chunk.shape == (3, 2, 2)
    assert noise.shape == (3, 1, 6)
    assert noise.abs().max() <= 1


def test_warm_up_acts_like_the_base():
    algo = DSRL(**SMALL, warmup=10**9)
    policy = base()
    state = algo.init(policy, line().spec)
    obs = observe(policy, 3)
    action, _ = algo.act(state, obs, generator(4))
    noise = torch.randn(3, 6, generator=generator(4)).view(3, 1, 3, 2)
    torch.testing.assert_close(action, policy.act(obs, noise)[:, :2])


@pytest.mark.parametrize("kind", KINDS)
def test_updates_repeat_and_leave_the_base_alone(kind):
    policy = base("ddpm")
    before, weights = policy.hash(), []
    for _ in range(2):
        torch.manual_seed(0)
        algo = KINDS[kind](**SMALL, base_steps=3)
        state = algo.init(policy, line().spec)
        batch = batch_of(policy, action=(2, 2) if kind == "na" else (1, 6))
        g = generator()
        for _ in range(3):
            metrics = algo.update(state, batch, g)
        assert all(torch.isfinite(v) for v in metrics.values())
        assert state.step == 3
        weights.append(state.actor.hash())
        assert set(state.modules()) >= {"actor", "q", "target", "temperature"}
    assert weights[0] == weights[1]
    assert policy.hash() == before


@pytest.mark.parametrize("sample", [True, False])
def test_a_steered_policy_loads_without_flags(tmp_path, sample):
    algo = DSRL(**SMALL, sample=sample, base_steps=4, space=NoiseSpace("low_rank", 1.3, 2))
    actor = algo.init(base("ddpm"), line().spec).actor
    assert actor.noise_shape == (1, 2, 2)
    save_policy(actor, tmp_path / "steered")
    again = load_policy(tmp_path / "steered", "cpu")
    assert again.hash() == actor.hash()
    obs, noise = observe(actor), torch.randn(4, *actor.noise_shape, generator=generator())
    assert torch.equal(again.act(obs, noise), actor.act(obs, noise))
    assert torch.equal(actor.act(obs, noise), actor.act(obs, 0 * noise)) == (not sample)
    whole = actor.forward(actor.encode(obs).features, noise)
    torch.testing.assert_close(whole.detach(), actor.act(obs, noise))


def test_the_floor_of_the_temperature_holds():
    policy = base()
    algo = DSRL(**SMALL, alpha=0.2, alpha_floor=0.1, alpha_lr=1.0)
    state, g = algo.init(policy, line().spec), generator()
    for _ in range(5):
        algo.update(state, batch_of(policy), g)
    assert state.temperature.log_alpha.exp().item() >= 0.1 - 1e-6


def test_the_bound_of_gradients_holds_for_the_noise_critic_too():
    algo, policy = DSRL(**SMALL, max_grad_norm=1e-3), base()
    state = algo.init(policy, line().spec)
    algo.update(state, batch_of(policy), generator())
    norm = torch.cat([p.grad.flatten() for p in state.noise_q.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_refusals():
    for build, words in {
        (lambda: DSRL(noise_critic_rate=0.0)): "noise_critic_rate",
        (lambda: DSRL(distill_uniform=2.0)): "distill_uniform",
        (lambda: DSRL(alpha=0.0)): "alpha",
        (lambda: DSRL(base_steps=3).init(Fork(), fork().spec)): "own steps",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            build()
        assert "\n" not in str(error.value)


def test_sac_acts_in_the_noise_space():
    algo = DSRLSAC(space=NoiseSpace("repeat", bound=2.0), base_steps=3)
    env = algo.wrap(base("ddpm"), line(), generator())
    assert isinstance(env, NoiseEnv)
    assert env.spec.action.high == (2.0, 2.0)
    assert env.base.config.sampler.steps == 3
