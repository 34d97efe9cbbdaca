"""Any of our vector environments as one of Stable-Baselines3, so that its learners train on them as they are.

    env = sb3_env(NoiseEnv(make("Hopper-v5", num_envs=4), load_policy("runs/base"), NoiseSpace(bound=1.5)))
    SAC("MlpPolicy", env).learn(100_000)

Steps of a learner are decisions: of a `NoiseEnv`, one whole chunk. Shapes: N slots, T observations, D elements.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..envs.core import Step
from ..envs.history import History
from ..envs.seeds import train_seeds
from ..envs.vector import VectorEnv
from ..errors import UserError

Infos = list[dict[str, Any]]


def sb3_env(env: VectorEnv, *, n_obs_steps: int = 1, seed: int = 0) -> Any:
    """A `stable_baselines3.common.vec_env.VecEnv` that steps `env`.

    Flat observations become one Box, in the order of the specification and with all T of each side by side; where
    some are images, a Dict. Slots restart by themselves; `terminal_observation`, `TimeLimit.truncated` and `episode`
    (no Monitor is needed) are in the infos, and `is_success` where the environment says.

    Args:
        env: N slots; a NoiseEnv, a ResidualEnv or a plain one, which gets one action per step.
        n_obs_steps: T: observations the learner sees.
        seed: of the run; episodes take theirs from it.

    Raises:
        UserError: if Stable-Baselines3 is missing.
    """
    try:
        from stable_baselines3.common.vec_env import VecEnv
    except ImportError:
        raise UserError("Stable-Baselines3 is missing: pip install 'noisepilot[sb3]'") from None
    return type("SB3Env", (_Slots, VecEnv), {})(env, n_obs_steps, seed)


class _Slots:
    """The methods of a VecEnv."""

    def __init__(self, env: VectorEnv, n_obs_steps: int, seed: int) -> None:
        self.env, self.run_seed = env, seed
        self.history = History(n_obs_steps)
        self.render_mode = "rgb_array"
        self.episode = np.zeros(env.num_envs, np.int64)
        self.started = time.perf_counter()
        self.returns, self.length = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
        self.success = np.zeros(env.num_envs, bool)
        self.flat = all(len(array.shape) == 1 for array in env.spec.obs.values())
        low, high = (
            np.broadcast_to(np.asarray(np.inf if bound is None else bound, np.float32), env.spec.action.shape)
            for bound in (env.spec.action.low, env.spec.action.high)
        )
        low = low if env.spec.action.low is not None else -low
        space = spaces.Box(low, high, dtype=np.float32)
        cast(Any, super()).__init__(env.num_envs, self._observation_space(), space)

    def reset(self) -> Any:
        """Start new episodes everywhere."""
        given = cast(Any, self)._seeds
        if given[0] is not None:
            self.run_seed, self.episode[:] = int(given[0]), 0
        cast(Any, self)._reset_seeds()
        self._begin(list(range(self.env.num_envs)))
        return self._obs(self.history.obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of the actions, (N, D)."""
        self.actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, Infos]:
        """Execute them; where an episode ended, the observation is the next one's first."""
        step = self.env.step(torch.as_tensor(self.actions, device=self.env.spec.device)[:, None])
        self.history.push_chunk(step)
        reward, infos = self._count(step)
        ended = _numpy(step.ended)
        if ended.any():
            last = self._obs(self.history.obs)
            for slot in np.flatnonzero(ended):
                infos[slot]["terminal_observation"] = (
                    last[slot] if self.flat else {name: value[slot] for name, value in last.items()}
                )
            self._begin(np.flatnonzero(ended).tolist())
        return self._obs(self.history.obs), reward, ended, infos

    def close(self) -> None:
        """Free the environment."""
        self.env.close()

    def get_images(self) -> list[np.ndarray]:
        """A picture of every slot."""
        return [self.env.render(slot) for slot in range(self.env.num_envs)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The environment's attribute, once per slot."""
        owner = self if attr_name == "render_mode" else self.env
        return [getattr(owner, attr_name)] * self._number(indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible: the slots are one environment."""
        raise UserError(f"'{attr_name}' cannot be set for single slots: they are one environment, make it anew")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not possible: the slots are one environment."""
        raise UserError(f"'{method_name}' cannot be called on single slots: they are one environment, see its `env`")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Episodes are counted as a Monitor does."""
        return [wrapper_class.__name__ == "Monitor"] * self._number(indices)

    def _begin(self, slots: list[int]) -> None:
        everywhere = len(slots) == self.env.num_envs
        seeds = [train_seeds(self.run_seed, slot, int(self.episode[slot])) for slot in slots]
        self.history.reset(self.env.reset(seeds, None if everywhere else slots), None if everywhere else slots)
        self.episode[slots] += 1
        self.returns[slots], self.length[slots], self.success[slots] = 0.0, 0, False

    def _count(self, step: Step) -> tuple[np.ndarray, Infos]:
        """Rewards (N,), and what is known of each slot."""
        valid = _numpy(step.valid)
        reward = np.where(valid, _numpy(step.reward), 0.0).sum(1)
        self.returns += reward
        self.length += valid.sum(1)
        known = "success" in step.signals
        if known:
            self.success |= ((_numpy(step.signals["success"]) > 0) & valid).any(1)
        over, cut = _numpy(step.terminated).any(1), _numpy(step.truncated).any(1)
        void = _numpy(step.void)
        infos: Infos = [{} for _ in valid]
        for slot in np.flatnonzero(over | cut).tolist():
            taken = round(time.perf_counter() - self.started, 6)
            infos[slot]["TimeLimit.truncated"] = bool(cut[slot] and not over[slot])
            if void[slot]:  # lost with its worker: no episode to count
                continue
            infos[slot]["episode"] = {"r": float(self.returns[slot]), "l": int(self.length[slot]), "t": taken}
            if known:
                infos[slot]["is_success"] = bool(self.success[slot])
        return reward.astype(np.float32), infos

    def _observation_space(self) -> spaces.Space:
        steps, arrays = self.history.n_obs_steps, self.env.spec.obs
        if self.flat:
            return spaces.Box(-np.inf, np.inf, (steps * sum(array.dim for array in arrays.values()),), np.float32)
        return spaces.Dict(
            {name: spaces.Box(-np.inf, np.inf, (steps, *a.shape), np.float32) for name, a in arrays.items()}
        )

    def _obs(self, obs: dict[str, Tensor]) -> Any:
        arrays = {name: _numpy(obs[name]).astype(np.float32) for name in self.env.spec.obs}
        if self.flat:
            return np.concatenate([value.reshape(len(value), -1) for value in arrays.values()], 1)
        return arrays

    def _number(self, indices: int | Sequence[int] | None) -> int:
        return self.env.num_envs if indices is None else int(np.size(indices))


def _numpy(value: Tensor) -> Any:
    return value.detach().cpu().numpy()
