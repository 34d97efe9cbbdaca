"""The residual environment and the residual policy: the base alone at zero, clocks, limits, resume, refusals."""

import numpy as np
import pytest
import torch

from noisepilot.algos.residual_env import ResidualEnv
from noisepilot.envs.history import History
from noisepilot.envs.seeds import noise_generator
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.policies.normal import NormalMLP
from noisepilot.policies.residual import Residual, ResidualConfig

from ..policies.toys import generator, jolt
from .toys_wrapped import base, line


def returns_in_env(env: ResidualEnv, seeds: list[int], u: float = 0.0) -> np.ndarray:
    env.reset(seeds)
    action = torch.full((env.num_envs, 1, 2), u)
    return torch.cat([env.step(action).reward for _ in range(8)], 1).sum(1).numpy()


def returns_of_actor(actor: Residual, env, seeds: list[int]) -> np.ndarray:
    """What evaluation does with an actor that remembers."""
    history, rngs = History(actor.spec.n_obs_steps), [noise_generator(seed) for seed in seeds]
    history.reset(env.reset(seeds))
    actor.reset()
    total = torch.zeros(len(seeds), dtype=torch.float64)
    for _ in range(8):
        due = actor.due()
        noise = torch.zeros(len(seeds), *actor.noise_shape)
        for row, rng in enumerate(rngs):
            if due is None or due[row]:
                rng.standard_normal(out=noise[row].numpy(), dtype=np.float32)
        step = env.step(actor.act(history.obs, noise))
        history.push_chunk(step)
        total += step.reward[:, 0]
    return total.numpy()


@pytest.mark.parametrize("kind", ["ddim", "ddpm", "flow"])
def test_zero_residual_is_the_base_bit_for_bit(kind):
    policy, seeds = base(kind), [0, 1, 2]
    alone = evaluate(policy, line(), seeds).returns
    np.testing.assert_array_equal(returns_in_env(ResidualEnv(line(), policy, 0.1), seeds), alone)
    untrained = ResidualConfig(policy.config, NormalMLP((8,))).build(policy.spec, policy)
    np.testing.assert_array_equal(returns_of_actor(untrained, line(), seeds), alone)


def test_the_actor_does_what_its_corrections_do_in_the_environment():
    policy, seeds = base(), [0, 1, 2]
    actor = ResidualConfig(policy.config, NormalMLP((8,)), scale=0.2, obs_clip=0.5).build(policy.spec, policy)
    jolt(actor.network, 0.5)
    env, history = ResidualEnv(line(), policy, 0.2, bounded=False), History(2)
    history.reset(env.reset(seeds))
    total = torch.zeros(3, dtype=torch.float64)
    for _ in range(8):
        step = env.step(actor.network.mode(actor.features(history.obs)).detach()[:, None])
        history.push_chunk(step)
        total += step.reward[:, 0]
    np.testing.assert_allclose(total.numpy(), returns_of_actor(actor, line(), seeds), atol=1e-6)


def test_the_correction_is_scaled_and_bounded():
    policy = base()
    half = policy.normalizer.get_buffer("half_action")[0].item()
    rewards = []
    for u in (0.0, 0.5, 1.0, 7.0):
        env = ResidualEnv(line(max_steps=20), policy, 0.1)
        env.reset([0, 1, 2])
        rewards.append(env.step(torch.full((3, 1, 2), u)).reward[:, 0])
    base_reward, *moved = rewards
    for u, reward in zip((0.5, 1.0, 1.0), moved, strict=True):
        torch.testing.assert_close(reward - base_reward, torch.full((3,), 0.1 * u * half).double(), atol=1e-6, rtol=0)
    assert env.spec.action.low == (-1.0, -1.0)
    assert ResidualEnv(line(), policy, 0.1, bounded=False).spec.action.low is None


def test_every_slot_has_its_own_clock():
    """The base is called once per step for the slots that are due, also when episodes end inside a chunk."""
    policy, calls = base(), []
    env = ResidualEnv(line(max_steps=5), policy, 0.1)
    act = policy.act

    def counting(obs, noise=None, generator=None):
        calls.append(len(obs["state"]))
        return act(obs, noise, generator)

    env.base.act = counting
    assert set(env.reset([0, 1, 2])) == {"state", "base_action"}
    assert calls == [3]
    env.step(torch.zeros(3, 1, 2))
    assert calls == [3]  # chunks hold two actions
    obs = env.reset([9], [1])
    assert obs["base_action"].shape == (1, 2)
    assert calls == [3, 1]
    env.step(torch.zeros(3, 1, 2))
    assert calls == [3, 1, 2]  # slot 1 is in the middle of its chunk
    step = env.step(torch.zeros(3, 1, 2))
    assert calls == [3, 1, 2, 1]
    while not step.ended[0]:
        step = env.step(torch.zeros(3, 1, 2))
    frozen = env.playback.position[0].item()
    count = len(calls)
    for _ in range(6):  # nobody plans for an episode that is over
        env.step(torch.zeros(3, 1, 2))
    assert env.playback.position[0].item() == frozen
    assert len(calls) - count <= 4


def test_the_last_observation_of_a_truncated_episode_has_its_base_action():
    policy = base()
    env = ResidualEnv(line(1, max_steps=4), policy, 0.1)
    seed = next(s for s in range(99) if np.random.default_rng(s).normal(size=3).size and _life(s, 4) > 4)
    env.reset([seed])
    rng = noise_generator(seed)
    for _ in range(4):
        step = env.step(torch.zeros(1, 1, 2))
    assert step.truncated.item()
    rng.standard_normal((2, *policy.noise_shape), np.float32)
    noise = torch.from_numpy(rng.standard_normal((1, *policy.noise_shape), np.float32))
    expected = policy.normalizer.normalize("action", policy.act(env.history.obs, noise)[:, 0])
    torch.testing.assert_close(step.obs["base_action"][:, 0], expected)


def _life(seed: int, max_steps: int) -> int:
    rng = np.random.default_rng(seed)
    rng.normal(size=3)
    return int(rng.integers(3, max_steps + 2))


@pytest.mark.parametrize("slots", [None, [2, 0]])
def test_resume_is_bit_equal(slots):
    first, second = (ResidualEnv(line(max_steps=20), base("ddpm"), 0.1) for _ in range(2))
    actions = torch.rand(9, 3, 1, 2, generator=generator()) - 0.5
    first.reset([0, 1, 2])
    for action in actions[:3]:
        first.step(action)
    second.reset([8, 8, 8])
    state = first.get_state(slots)
    first.step(actions[3])
    again = first.set_state(state, slots)
    obs = second.set_state(state, slots)
    rows = slice(None) if slots is None else slots
    for name in ("state", "base_action"):
        assert torch.equal(again[name], obs[name])
    for action in actions[4:]:
        a, b = first.step(action), second.step(action)
        for name in ("state", "base_action"):
            assert torch.equal(a.obs[name][rows], b.obs[name][rows])
        assert torch.equal(a.reward[rows], b.reward[rows])


def test_an_actor_forgets_at_the_start_of_an_episode():
    policy = base()
    actor = ResidualConfig(policy.config, NormalMLP((8,))).build(policy.spec, policy)
    obs = {"state": torch.zeros(3, 2, 3)}
    assert actor.due() is None
    actor.act(obs, generator=generator())
    assert actor.due().tolist() == [False, False, False]
    actor.reset([1])
    assert actor.due().tolist() == [False, True, False]
    actor.act(obs, generator=generator())
    assert actor.due().tolist() == [True, False, True]
    actor.act({"state": torch.zeros(2, 2, 3)}, generator=generator())  # another number of rows: a new start
    actor.reset()
    assert actor.due() is None
    assert actor.spec.n_action_steps == actor.spec.horizon == 1


def test_refusals():
    policy = base()
    env = ResidualEnv(line(), policy, 0.1)
    for build, words in {
        (lambda: ResidualEnv(line(), policy, 0.0)): "scale",
        (lambda: ResidualConfig(policy.config, scale=-1.0)): "scale",
        (lambda: ResidualConfig(None).build(policy.spec)): "from outside",
        (lambda: ResidualEnv(env, policy, 0.1)): "base_action",
        (lambda: ResidualEnv(line(dim=3), policy, 0.1)): "differ in actions",
        (lambda: env.step(torch.zeros(3, 2, 2))): "shape",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            build()
        assert "\n" not in str(error.value)
