"""The noise space of a frozen policy: the same chunks, the same episodes, limits, resume, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from noisepilot.algos.black_box import Exported, Remote
from noisepilot.algos.noise_env import NoiseEnv
from noisepilot.deploy.export import export
from noisepilot.envs.seeds import noise_generator
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.policies.noise_space import NoiseSpace, cosines
from noisepilot.policies.residual import corrected

from ..policies.toys import generator
from .toys_wrapped import base, line

WIDE = NoiseSpace(bound=10.0)


def play(env: NoiseEnv, seeds: list[int], noises: list[np.random.Generator], steps: int) -> list[torch.Tensor]:
    env.reset(seeds)
    rewards = []
    for _ in range(steps):
        w = np.stack([rng.standard_normal((1, env.spec.action.dim), np.float32) for rng in noises])
        rewards.append(env.step(torch.from_numpy(w)).reward)
    return rewards


@pytest.mark.parametrize("kind", ["ddim", "flow"])
def test_the_base_s_own_noise_gives_the_base_s_own_episodes(kind):
    policy, seeds = base(kind), [3, 4, 5]
    alone = evaluate(policy, line(), seeds).returns
    rewards = play(NoiseEnv(line(), policy, WIDE), seeds, [noise_generator(seed) for seed in seeds], 4)
    np.testing.assert_array_equal(torch.cat(rewards, 1).sum(1).numpy(), alone)


def test_the_same_noise_gives_the_same_chunk():
    env = NoiseEnv(line(4), base(), NoiseSpace(bound=2.0))
    w = torch.randn(1, 1, env.spec.action.dim, generator=generator()).expand(4, 1, -1)
    env.reset([7] * 4)
    step = env.step(w)
    assert env.last_chunk is not None
    assert env.last_chunk.shape == (4, 2, 2)
    assert torch.equal(env.last_chunk, env.last_chunk[:1].expand(4, 2, 2))
    executed = env.base.normalizer.denormalize("action", env.last_chunk)
    torch.testing.assert_close(step.reward.float(), executed[..., 0].float(), atol=1e-6, rtol=0)


def test_noise_beyond_the_bound_counts_as_the_bound():
    chunks = []
    for size in (1.5, 9.0):
        env = NoiseEnv(line(), base(), NoiseSpace(bound=1.5))
        assert env.spec.action.high == (1.5,) * 6
        assert env.spec.action.low == (-1.5,) * 6
        env.reset([0, 1, 2])
        env.step(torch.full((3, 1, 6), size))
        chunks.append(env.last_chunk)
    assert torch.equal(*chunks)


@pytest.mark.parametrize(("kind", "rank", "size"), [("full", 2, 12), ("repeat", 2, 2), ("low_rank", 3, 6)])
def test_spaces(kind, rank, size):
    space = NoiseSpace(kind, 1.0, rank)
    w = torch.randn(20_000, size, generator=generator())
    noise = space.expand(w, 6)
    assert noise.shape == (20_000, 1, 6, 2)
    torch.testing.assert_close(noise.var(0)[0], torch.ones(6, 2), atol=0.05, rtol=0)
    if kind == "repeat":
        assert (noise == noise[:, :, :1]).all()
    if kind == "low_rank":  # smooth: neighbours move together, and rank 1 is a repetition
        assert torch.corrcoef(noise[:, 0, :2, 0].T)[0, 1] > 0.8
        assert (cosines(6, 1) == 1).all()


def test_a_base_with_noise_at_every_step_is_run_without():
    env = NoiseEnv(line(), base("ddpm"), WIDE, steps=5)
    assert env.base.noise_shape == (1, 3, 2)
    assert env.base.config.sampler.steps == 5
    assert env.spec.action.dim == 6


@pytest.mark.parametrize("slots", [None, [2, 0]])
def test_resume_is_bit_equal(slots):
    first, second = (NoiseEnv(line(), base(), WIDE) for _ in range(2))
    actions = torch.randn(4, 3, 1, 6, generator=generator())
    first.reset([0, 1, 2])
    first.step(actions[0])
    second.reset([8, 8, 8])
    state = first.get_state(slots)
    assert all(len(value) == (3 if slots is None else 2) for value in state.values())
    first.step(actions[3])  # what was saved does not move
    first.set_state(state, slots)
    second.set_state(state, slots)
    for action in actions[1:3]:
        a, b = first.step(action), second.step(action)
        rows = slice(None) if slots is None else slots
        assert torch.equal(a.obs["state"][rows], b.obs["state"][rows])
        assert torch.equal(a.reward[rows], b.reward[rows])
        assert torch.equal(a.valid[rows], b.valid[rows])


def test_reset_of_some_slots_first_and_the_rest_passes_through():
    core = line()
    env = NoiseEnv(core, base(), WIDE)
    assert env.reset([5], [1])["state"].shape == (1, 3)
    step = env.step(torch.zeros(3, 1, 6))
    assert step.valid.any(1).tolist() == [False, True, False]
    assert env.render(2, 4, 4).max() == 2
    env.close()
    assert core.core.closed


@pytest.mark.parametrize("suffix", [".npz", ".onnx"])
def test_an_exported_file_steers_like_its_policy(tmp_path, suffix):
    pytest.importorskip("onnxruntime")
    policy = base("ddim", steps=2)
    export(policy, tmp_path / f"base{suffix}", provenance={})
    black = Exported(tmp_path / f"base{suffix}")
    w = torch.randn(3, 1, 6, generator=generator())
    chunks = []
    for actor in (policy, black):
        env = NoiseEnv(line(), actor, WIDE)
        env.reset([0, 1, 2])
        env.step(w)
        chunks.append((env.last_chunk, env.base.encode(env.history.obs).features))
    torch.testing.assert_close(chunks[0], chunks[1], atol=1e-5, rtol=1e-5)


def test_a_function_steers_like_its_policy():
    policy = base()

    def answer(obs, noise):
        return policy.act({k: torch.from_numpy(v) for k, v in obs.items()}, torch.from_numpy(noise)).numpy()

    seeds = [3, 4, 5]
    rewards = [
        play(NoiseEnv(line(), actor, WIDE), seeds, [noise_generator(s) for s in seeds], 2)
        for actor in (policy, Remote(answer, policy.spec, policy.noise_shape, policy.normalizer))
    ]
    assert torch.equal(torch.stack(rewards[0]), torch.stack(rewards[1]))


def test_refusals():
    policy = base()
    silent = Remote(lambda obs, noise: noise[:, 0], policy.spec, ())
    noisy = Remote(lambda obs, noise: noise[:, 0], policy.spec, (6, 3, 2))
    for build, words in {
        (lambda: NoiseSpace(bound=0.0)): "bound must be positive",
        (lambda: NoiseSpace(bound=-1.0)): "bound must be positive",
        (lambda: NoiseSpace(bound=float("inf"))): "bound must be positive and finite",
        (lambda: NoiseEnv(line(), corrected(policy, GaussianMLP((8,)), 0.1), WIDE)): "Residual remembers",
        (lambda: NoiseEnv(line(), policy, WIDE, steps=0)): "steps 0 must lie between",
        (lambda: NoiseSpace("low_rank", rank=0)): "rank",
        (lambda: NoiseEnv(line(), policy, NoiseSpace("low_rank", rank=4))): "horizon 3",
        (lambda: NoiseEnv(line(), silent, WIDE)): "takes no noise",
        (lambda: NoiseEnv(line(), noisy, WIDE)): "eta 0",
        (lambda: NoiseEnv(line(dim=3), policy, WIDE)): "differ in actions",
        (lambda: NoiseEnv(line(), policy, WIDE).step(torch.zeros(3, 2, 6))): "shape",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            build()
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="returned a NoneType"):
        Remote(lambda obs, noise: None, policy.spec, (1, 3, 2)).act({"state": torch.zeros(1, 2, 3)})
    wrong = replace(policy.spec, horizon=4)
    with pytest.raises(UserError, match="expected"):
        Remote(lambda obs, noise: noise[:, 0], wrong, (1, 3, 2)).act({"state": torch.zeros(1, 2, 3)})
