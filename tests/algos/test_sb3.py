"""Stable-Baselines3's own learners on the noise of a policy, on its corrections and on a plain environment."""

import builtins

import numpy as np
import pytest
import torch

from noisepilot.algos.noise_env import NoiseEnv
from noisepilot.algos.residual_env import ResidualEnv
from noisepilot.algos.sb3 import sb3_env
from noisepilot.errors import UserError
from noisepilot.policies.noise_space import NoiseSpace

from .toys_bandit import Fork, fork
from .toys_wrapped import base, line

sb3 = pytest.importorskip("stable_baselines3")
WRAPS = {
    "noise": lambda env, policy: NoiseEnv(env, policy, NoiseSpace(bound=1.5)),
    "residual": lambda env, policy: ResidualEnv(env, policy, 0.1),
}


@pytest.fixture(autouse=True)
def _seeds():
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("learner", ["SAC", "PPO"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_learners_run_unchanged(wrap, learner):
    env = sb3_env(WRAPS[wrap](line(), base()), n_obs_steps=2)
    small = {"policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 1}
    more = {"learning_starts": 20, "batch_size": 16} if learner == "SAC" else {"n_steps": 16, "batch_size": 16}
    model = getattr(sb3, learner)("MlpPolicy", env, **small, **more).learn(120)
    assert len(model.ep_info_buffer) > 5
    lengths = [info["l"] for info in model.ep_info_buffer]
    assert max(lengths) <= 7  # environment steps, also where a decision is a chunk
    reward, _ = sb3.common.evaluation.evaluate_policy(model, env, n_eval_episodes=4)
    assert np.isfinite(reward)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sac_steers_a_base_to_its_better_mode():
    env = sb3_env(NoiseEnv(fork(8), Fork(), NoiseSpace(bound=1.5)))
    model = sb3.SAC(
        "MlpPolicy", env, learning_rate=2e-3, batch_size=64, gradient_steps=6, gamma=0.9, learning_starts=100,
        policy_kwargs={"net_arch": [32]}, device="cpu", seed=0,
    )  # fmt: skip
    evaluate = sb3.common.evaluation.evaluate_policy
    before = evaluate(model, env, n_eval_episodes=40)[0]
    after = evaluate(model.learn(1200), env, n_eval_episodes=40)[0]
    assert before < -1.5
    assert after > -0.7


def test_what_an_episode_s_end_looks_like():
    """The true last observation, whether time ran out, sums over chunks, and a fresh start in the same call."""
    plain, env = line(), line()
    vec = sb3_env(NoiseEnv(env, base(), NoiseSpace(bound=9.0)), n_obs_steps=2)
    vec.seed(5)
    assert vec.reset().shape == (3, 6)
    sums, seen = np.zeros(3), {True: 0, False: 0}
    for _ in range(30):
        obs, reward, ended, infos = vec.step(np.zeros((3, 6), np.float32))
        sums += reward
        for slot in range(3):
            assert ended[slot] == ("terminal_observation" in infos[slot])
            if not ended[slot]:
                continue
            info = infos[slot]
            seen[info["TimeLimit.truncated"]] += 1
            assert info["TimeLimit.truncated"] == (not info["is_success"])
            assert info["episode"]["r"] == pytest.approx(sums[slot], abs=1e-5)
            assert not np.array_equal(obs[slot], info["terminal_observation"])
            np.testing.assert_array_equal(obs[slot, :3], obs[slot, 3:])  # a new history
            sums[slot] = 0
    assert min(seen.values()) > 0
    vec.seed(5)
    first = vec.reset()
    np.testing.assert_array_equal(first, sb3_env(plain, n_obs_steps=2, seed=5).reset())


def test_a_plain_environment_and_what_learners_ask_of_it():
    vec = sb3_env(line(2))
    assert vec.action_space.shape == (2,)
    assert (vec.action_space.high == 1).all()
    assert vec.observation_space.shape == (3,)
    vec.reset()
    assert vec.step(np.ones((2, 2), np.float32))[1].shape == (2,)
    assert vec.get_attr("num_envs") == [2, 2]
    assert vec.render().shape[2] == 3
    for ask in (lambda: vec.set_attr("x", 1), lambda: vec.env_method("x")):
        with pytest.raises(UserError, match="one environment"):
            ask()
    unbounded = sb3_env(ResidualEnv(line(), base(), 0.1, bounded=False)).action_space
    assert unbounded.low[0] == -np.inf
    assert unbounded.high[0] == np.inf
    vec.close()


def test_without_stable_baselines3(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("stable_baselines3"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'noisepilot\[sb3\]'"):
        sb3_env(line())
