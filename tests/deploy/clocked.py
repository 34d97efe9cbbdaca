"""Policies that plan the number of each tick, so that an action says when it was meant to be executed."""

import time
from types import SimpleNamespace

import numpy as np

from noisepilot.envs.core import Step
from noisepilot.spec import ArraySpec, EnvSpec


class Ticker:
    """Chunks of t, t + 1, ..., where t is the newest observation; calls and prefixes are kept.

    With `shift` the n-th chunk is n * shift higher, and with `max_prefix` it begins with the prefix all the same.
    """

    def __init__(self, horizon=16, n_action_steps=8, *, max_prefix=0, shift=0.0, bad=(), broken=(), cost_s=0.0):
        self.spec = SimpleNamespace(
            observations={"state": {"shape": (1, 1)}},
            action={
                "shape": (horizon, 1),
                "names": ["x"],
                "low": None,
                "high": None,
                "seen_low": [0],
                "seen_high": [2],
            },
            noise_shape=(1, horizon, 1),
            control_hz=100.0,
            horizon=horizon,
            n_action_steps=n_action_steps,
            n_obs_steps=1,
            max_prefix=max_prefix,
            env="",
            env_kwargs={},
        )
        self.shift, self.bad, self.broken, self.cost_s = shift, bad, broken, cost_s
        self.calls = []
        self.prefixes = []

    def act(self, obs, noise=None, *, generator=None, prefix=None):
        if noise is not None and not np.any(noise):  # warm-up
            return np.zeros((self.spec.horizon, 1), np.float32)
        if np.ndim(obs["state"]) == 3:
            rows = [None] * len(noise) if prefix is None else prefix
            return np.stack([self.act({"state": o}, prefix=p) for o, p in zip(obs["state"], rows, strict=True)])
        if self.cost_s:
            time.sleep(self.cost_s)
        tick = int(obs["state"][-1, 0])
        self.calls.append(tick)
        self.prefixes.append((tick, prefix))
        number = len(self.calls) - 1
        if number in self.broken:
            raise ValueError("no plan today")
        chunk = (tick + number * self.shift + np.arange(self.spec.horizon, dtype=np.float32))[:, None]
        if number in self.bad:
            chunk[:] = np.nan
        if prefix is not None:
            assert 0 < len(prefix) <= self.spec.max_prefix
            chunk[: len(prefix)] = prefix
        return chunk


class Guided(Ticker):
    """The same, guided along the rest of the running chunk."""

    guided = True

    def __init__(self, **options):
        super().__init__(**options)
        self.frozen = []

    def act(self, obs, noise=None, *, generator=None, prefix=None, frozen=None):
        chunk = super().act(obs, noise, generator=generator)
        if prefix is not None:
            chunk[:frozen] = prefix[:frozen]
            self.prefixes[-1] = (self.calls[-1], prefix)
            self.frozen.append(frozen)
        return chunk


class Ticks:
    """N slots whose observation is the number of ticks played; what each episode executed is kept by its seed."""

    def __init__(self, num_envs, length):
        self.num_envs, self.length = num_envs, length
        state = {"state": ArraySpec((1,))}
        self.spec = EnvSpec("Ticks", state, ArraySpec((1,)), control_hz=100.0, max_steps=length, signals=("success",))
        self.count = np.full(num_envs, -1)
        self.seeds = [0] * num_envs
        self.executed = {}

    def reset(self, seeds, slots=None, state=None):
        for slot, seed in zip(range(self.num_envs) if slots is None else slots, seeds, strict=True):
            self.seeds[slot], self.count[slot], self.executed[seed] = seed, 0, []
        return {"state": np.zeros((len(seeds), 1))}

    def step(self, action):
        valid = self.count < self.length
        for slot in np.flatnonzero(valid):
            self.executed[self.seeds[slot]].append(float(action[slot, 0, 0]))
        self.count += valid
        over = ((self.count == self.length) & valid)[:, None]
        return Step(
            obs={"state": self.count[:, None, None].astype(float)},
            reward=valid[:, None].astype(float),
            terminated=np.zeros_like(over),
            truncated=over,
            valid=valid[:, None],
            signals={"success": over.astype(float)},
        )

    def get_state(self, slots=None):
        raise NotImplementedError

    set_state = render = get_state

    def close(self):
        pass
