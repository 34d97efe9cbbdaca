"""Off-policy gradient steps at batch 256 on one thread: `offpolicy/dql` and `offpolicy/fql`, in steps per second.

Diffusion Q-learning: observation 11, action 3, 5 denoising steps, 3 x 256 Mish; FQL: observation 28, action 5, 10 flow
steps, 4 x 512 GELU with a normalised critic, their official settings. The limit counts matrix products alone, with
what neither time nor step changes folded away. B batch, K steps; W_p weights of the policy, W_k of one denoising step
with the observation folded, W_s of the student, W_q of the critic's E members together.

    DQL    2 B [(K W_k) next action + W_q target + 3 W_q critic + 3 W_p cloning + 3 K W_k chain + 2 W_q value] / rate
    FQL    2 B [W_s next action + W_q target + 3 W_q critic + 3 W_p cloning + K W_k teacher + 3 W_s + 2 W_q] / rate

A gradient costs two forward passes, one of them where only the input's is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..algos.dql import DQL, METHODS
from ..algos.q_learning import QState
from ..algos.replay import Experience
from ..policies import MLP, LinearPath, Policy, PolicyConfig, Sampler
from ..policies.path import VPPath
from ..spec import ArraySpec, EnvSpec
from .limits import Limits
from .race import Effort, Row, Variant, race
from .toys import chain_weights, weights

BATCH = 256


def diffusion_q_learning(limits: Limits, effort: Effort) -> Iterator[Row]:
    """A full step of DQL."""
    network = MLP((256, 256, 256), activation="mish", residual=False)
    policy = _policy(PolicyConfig(network, VPPath(5), Sampler(5), horizon=1, n_action_steps=1), 11, 3)
    yield _measure("offpolicy/dql", METHODS["dql"], policy, limits, effort)


def flow_q_learning(limits: Limits, effort: Effort) -> Iterator[Row]:
    """A full step of FQL."""
    network = MLP((512, 512, 512, 512), time_dim=0, activation="gelu", residual=False)
    sampler = Sampler(10, eta=0.0, clip_data=None)
    policy = _policy(PolicyConfig(network, LinearPath(), sampler, "velocity", horizon=1, n_action_steps=1), 28, 5)
    algo = replace(METHODS["fql"], act_after=0)  # a full step from the first one on
    yield _measure("offpolicy/fql", algo, policy, limits, effort)


def _policy(config: PolicyConfig, obs: int, action: int) -> Policy:
    torch.manual_seed(0)
    policy = Policy(config, config.spec({"state": ArraySpec((obs,))}, ArraySpec((action,))))
    for name, dim in (("state", obs), ("action", action)):
        policy.normalizer.set(name, np.zeros(dim), np.ones(dim))
    return policy


def _measure(name: str, algo: DQL, policy: Policy, limits: Limits, effort: Effort) -> Row:
    state = algo.init(policy, EnvSpec("toy", policy.spec.obs, policy.spec.action, 1.0, 1))
    generator, batch = torch.Generator().manual_seed(0), _batch(policy)

    def step() -> None:
        algo.update(state, batch, generator)

    seconds = race({"ours": Variant(step, limits.fast_matmul, 1)}, effort)["ours"]
    least = operations(state) / limits.gemm(1)
    return Row(name, 1 / seconds, "steps/s", least / seconds)


def operations(state: QState) -> float:
    """Additions and multiplications of one step's matrix products."""
    policy, steps = weights(state.policy.network), state.policy.config.sampler.steps
    chain, critic = steps * chain_weights(state.policy), stacked_weights(state.critic)
    if state.student is None:
        return 2.0 * BATCH * (4 * chain + 6 * critic + 3 * policy)
    return 2.0 * BATCH * (4 * weights(state.student.network) + chain + 6 * critic + 3 * policy)


def stacked_weights(module: nn.Module) -> int:
    """Elements of an ensemble's matrices."""
    return sum(p.numel() for name, p in module.named_parameters() if "layers" in name and name.endswith("weight"))


def _batch(policy: Policy) -> Experience:
    spec, g = policy.spec, torch.Generator().manual_seed(1)
    obs = [{k: torch.randn(BATCH, 1, *s.shape, generator=g) for k, s in spec.obs.items()} for _ in range(2)]
    action = torch.rand(BATCH, spec.horizon, spec.action.dim, generator=g) * 2 - 1
    reward = torch.randn(BATCH, spec.n_action_steps, generator=g)
    length = torch.full((BATCH,), spec.n_action_steps)
    return Experience(obs[0], action, reward, length, torch.zeros(BATCH, dtype=torch.bool), obs[1])
