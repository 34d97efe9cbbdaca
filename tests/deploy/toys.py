"""Small policies of every kind, and an environment whose course is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from noisepilot.deploy.runtime import Policy as Exported
from noisepilot.policies import (
    MLP,
    Consistency,
    CosinePath,
    LinearPath,
    Policy,
    PolicyConfig,
    Sampler,
    Shortcut,
)
from noisepilot.spec import ArraySpec

SMALL = MLP(hidden=(32, 32, 32), time_dim=8)
CONFIGS = {
    "ddpm20": PolicyConfig(SMALL, CosinePath(20), Sampler(20)),
    "ddim5": PolicyConfig(SMALL, CosinePath(20), Sampler(5, eta=0.0)),
    "flow1": PolicyConfig(SMALL, LinearPath(), Sampler(1, eta=0.0, clip_data=None), predicts="velocity"),
    "shortcut4": PolicyConfig(
        replace(SMALL, step_size=True, condition_hidden=(8,), combine="add", activation="gelu"),
        LinearPath(),
        Sampler(4, eta=0.0, clip_data=None, clip_mean=0.5),
        "velocity",
        Shortcut(),
    ),
    "stretched": PolicyConfig(SMALL, LinearPath(shown="stretched"), Sampler(4, 0.7, None, 2.0, 0.4), "velocity"),
    "renoise": PolicyConfig(SMALL, LinearPath(), Sampler(3, transition="renoise"), "velocity", Consistency()),
    "history": PolicyConfig(SMALL, CosinePath(5), Sampler(3), horizon=6, n_action_steps=3, n_obs_steps=3),
    "condition": PolicyConfig(
        MLP(hidden=(32, 24), condition_hidden=(16, 8), time_dim=8, activation="mish", residual=False),
        CosinePath(5),
        Sampler(3),
    ),
}
OBS = {
    "state": ArraySpec((4,), names=("x", "y", "vx", "vy"), unit="m"),
    "goal": ArraySpec((2,), low=(-3.0, float("-inf")), high=(3.0, 3.0)),
}
ACTION = ArraySpec((2,), names=("left", "right"), low=(-1.0, -1.0), high=(1.0, 1.0), unit="N")


def make_policy(name: str, obs=OBS, action=ACTION) -> Policy:
    """A policy with random weights and a normaliser that moves, scales and has a constant dimension."""
    torch.manual_seed(0)
    config = CONFIGS[name]
    policy = Policy(config, replace(config.spec(obs, action, control_hz=20.0), env="Toy"))
    rng = np.random.default_rng(0)
    for key, spec in {**obs, "action": action}.items():
        low = rng.uniform(-2, 0, spec.shape)
        policy.normalizer.fit(key, low, low + rng.uniform(0.5, 3, spec.shape))
    if "goal" in obs:
        policy.normalizer.set("goal", np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    return policy.eval()


def draw_obs(policy: Policy, batch: int) -> dict[str, torch.Tensor]:
    generator, steps = torch.Generator().manual_seed(1), policy.spec.n_obs_steps
    return {k: torch.randn(batch, steps, *s.shape, generator=generator) for k, s in policy.spec.obs.items()}


class Planner:
    """What a runtime policy runs: it plans the numbers 0, 1, 2, ... and remembers what it saw."""

    def __init__(self, *, n_obs_steps=1, bad=(), cost=lambda: None):
        self.n_obs_steps, self.bad, self.cost = n_obs_steps, bad, cost
        self.seen, self.noise = [], []

    def __call__(self, feeds):
        if not feeds["noise"].any():  # warm-up
            return np.zeros((1, 4, 1), np.float32)
        self.cost()
        chunk = 2 * len(self.seen) + np.arange(4, dtype=np.float32)
        chunk[np.isin(chunk, self.bad)] = np.nan
        self.seen.append(feeds["observation.state"][0, :, 0].tolist())
        self.noise.append(feeds["noise"][0, 0, 0, 0])
        return chunk[None, :, None]

    def policy(self) -> Exported:
        """Chunks of four, of which two are executed."""
        shapes = {
            "horizon": 4,
            "n_action_steps": 2,
            "n_obs_steps": self.n_obs_steps,
            "noise_shape": [1, 4, 1],
        }
        arrays = {"observations": {"state": {"shape": [self.n_obs_steps, 1]}}, "action": {"shape": [4, 1]}}
        return Exported(self, {"schema": 1, "control_hz": 10.0, "env": "Counter", **shapes, **arrays})


class Counter:
    """One slot; the observation is the number of the step; an episode lasts `length` steps."""

    def __init__(self, length: int, cost=lambda: None):
        self.length, self.cost = length, cost
        self.actions, self.seeds = [], []

    def reset(self, seeds):
        self.seeds += seeds
        self.count = 0
        return {"state": np.zeros((1, 1))}

    def step(self, action):
        assert action.shape == (1, 1, 1)
        self.cost()
        self.actions.append(float(action[0, 0, 0]))
        self.count += 1
        over = np.array([[self.count == self.length]])
        return SimpleNamespace(
            obs={"state": np.full((1, 1, 1), float(self.count))},
            reward=np.array([[0.5]]),
            terminated=over,
            truncated=np.zeros((1, 1), bool),
            signals={"success": over.astype(float)},
        )


class Clock:
    """A clock that moves by 20 microseconds when it is read, and by what is slept or spent."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 2e-5
        return self.now

    def spend(self, seconds):
        self.now += seconds
