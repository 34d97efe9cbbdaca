"""The same chunks through Gymnasium itself, and comparisons with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from noisepilot.envs import Core


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def named(obs: Any) -> dict[str, np.ndarray]:
    """Observations of Gymnasium under our names."""
    if isinstance(obs, np.ndarray):
        return {"state": obs}
    return {"state": obs["observation"], "goal": obs["desired_goal"]}


def check_against(core: Core, reference: Callable[[], gym.Env], seeds: range, chunks: np.ndarray) -> int:
    """Run chunks (K, N, n, A) through both; every slot must agree until it ends and idle after that.

    Returns the number of steps compared.
    """
    first = core.reset(seeds)
    steps = [core.step(chunk) for chunk in chunks]
    return sum(
        check_slot(slot, {k: v[slot] for k, v in first.items()}, steps, reference(), seed, chunks[:, slot])
        for slot, seed in enumerate(seeds)
    )


def check_slot(slot: int, first: dict, steps: list, env: gym.Env, seed: int, chunks: np.ndarray) -> int:
    obs, _ = env.reset(seed=seed)
    for name, value in named(obs).items():
        np.testing.assert_array_equal(first[name], value)
    over, count = False, 0
    for step, chunk in zip(steps, chunks, strict=True):
        for k, action in enumerate(chunk):
            assert step.valid[slot, k] == (not over)
            if not over:
                obs, reward, terminated, truncated, info = env.step(action)
                over, count = terminated or truncated, count + 1
                close(step.reward[slot, k], reward)
                assert (step.terminated[slot, k], step.truncated[slot, k]) == (terminated, truncated)
                if "success" in step.signals:
                    assert step.signals["success"][slot, k] == info["success"]
            else:
                assert step.reward[slot, k] == 0
                assert not step.terminated[slot, k]
                assert not step.truncated[slot, k]
            for name, value in named(obs).items():
                close(step.obs[name][slot, k], value)
    env.close()
    return count


def actions(core: Core, chunks: int, n: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Random chunks (K, N, n, A), also beyond the limits if `scale` says so."""
    rng = np.random.default_rng(seed)
    high = np.array(core.spec.action.high)
    return rng.uniform(-scale, scale, (chunks, core.num_envs, n, core.spec.action.dim)) * high
