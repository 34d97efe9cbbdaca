"""A task of one decision whose two answers a base knows, one of them good; the learners' shared loop for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from noisepilot.algos.black_box import Remote
from noisepilot.algos.replay import Experience, Replay
from noisepilot.envs.core import Step
from noisepilot.envs.episodes import Episodes, Outcome, check_seeds
from noisepilot.envs.history import History
from noisepilot.envs.seeds import train_seeds
from noisepilot.envs.vector import TensorEnv
from noisepilot.policies.normalizer import Normalizer
from noisepilot.policies.policy import ACTION, Context
from noisepilot.spec import ArraySpec, EnvSpec, PolicySpec

LIMITS = ((-1.0,), (1.0,))
STEPS = 4
SPEC = EnvSpec("Fork", {"state": ArraySpec((1,))}, ArraySpec((1,), (), *LIMITS), 10.0, STEPS, ("success",))


class ForkCore:
    """Each of four steps pays -|action - goal|, where the goal's sign is the observation's."""

    spec = SPEC

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.episodes = Episodes(SPEC, num_envs)
        self.side = np.zeros((num_envs, 1))

    def reset(self, seeds, slots=None, state=None):
        chosen = self.episodes.select(slots)
        for slot, seed in zip(chosen, check_seeds(seeds, chosen), strict=True):
            self.side[slot] = np.random.default_rng(seed).choice([-1.0, 1.0])
        self.episodes.begin(chosen, {"state": self.side[chosen]})
        return {"state": self.side[chosen].copy()}

    def step(self, action) -> Step:
        slots, action = self.episodes.admit(action)
        error = np.abs(action[..., 0] - 0.6 * self.side[slots])
        obs = np.repeat(self.side[slots][:, None], action.shape[1], 1)
        age = self.episodes.elapsed[slots, None] + np.arange(1, action.shape[1] + 1)
        outcome = Outcome({"state": obs}, -error, age == STEPS, {"success": (error < 0.2).astype(float)})
        return self.episodes.record(slots, outcome)[0]

    def get_state(self, slots=None):
        chosen = self.episodes.select(slots)
        return {"side": self.side[chosen]} | self.episodes.get_state(chosen)

    def set_state(self, state, slots=None):
        chosen = self.episodes.select(slots)
        self.side[chosen] = state["side"]
        self.episodes.set_state(chosen, state, {"state": self.side[chosen]})
        return {"state": self.side[chosen].copy()}

    def render(self, slot=0, width=320, height=240):
        return np.zeros((height, width, 3), np.uint8)

    def close(self):
        pass


class Fork:
    """A base with two modes: about +0.5 or -0.5 for two steps, whichever its noise says; it never looks."""

    def __init__(self) -> None:
        self.spec = PolicySpec(SPEC.obs, SPEC.action, horizon=2, n_action_steps=2)
        self.noise_shape = (1, 2, 1)
        self.normalizer = Normalizer({**SPEC.obs, ACTION: SPEC.action})
        for name in ("state", ACTION):
            self.normalizer.set(name, np.zeros(1), np.ones(1))
        self.device, self.dtype, self.feature_dim = torch.device("cpu"), torch.float32, 1

    def encode(self, obs: Any) -> Context:
        features = self.normalizer.normalize("state", obs["state"].float()).flatten(1)
        return Context(features, features)

    def act(self, obs: Any, noise: Any = None, generator: Any = None) -> torch.Tensor:
        if noise is None:
            noise = torch.randn(len(obs["state"]), *self.noise_shape, generator=generator)
        return 0.5 * torch.tanh(4 * noise.mean((1, 2, 3)))[:, None, None].expand(-1, 2, 1)


def lopsided() -> Remote:
    """A base that is 0.3 off to the right, whatever it sees."""
    spec = Fork().spec
    return Remote(lambda obs, noise: 0.6 * obs["state"][:, -1:].repeat(2, 1) + 0.3, spec, (1, 2, 1))


def fork(num_envs: int = 8) -> TensorEnv:
    return TensorEnv(ForkCore(num_envs))


def train(algo: Any, state: Any, env: Any, decisions: int, generator: torch.Generator) -> None:
    """Off-policy learning without a run folder: decide in every slot, then the gradient steps that are due."""
    replay, history, episode = Replay(algo.replay), History(1), 0

    def begin(slots: list[int]) -> None:
        nonlocal episode
        episode += 1
        everywhere = len(slots) == env.num_envs
        obs = env.reset([train_seeds(0, slot, episode) for slot in slots], None if everywhere else slots)
        history.reset(obs, None if everywhere else slots)

    begin(list(range(env.num_envs)))
    for count in range(1, decisions // env.num_envs + 1):
        obs = history.obs
        action, extras = algo.act(state, obs, generator)
        step = env.step(action)
        history.push_chunk(step)
        rest = {k: v for k, v in extras.items() if k != "action"}
        ended = step.terminated.any(1)
        replay.add(Experience(obs, extras["action"], step.reward.float(), step.valid.sum(1), ended, history.obs, rest))
        over = step.ended.nonzero().flatten().tolist()
        if over:
            begin(over)
        while state.step < algo.utd * (count * env.num_envs - algo.warmup):
            algo.update(state, replay.sample(algo.batch, generator), generator)
