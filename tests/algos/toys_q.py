"""Policies, batches and a bandit for Q-learning, and how official arrays enter our modules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from noisepilot.algos.replay import Experience
from noisepilot.policies import Policy, PolicyConfig
from noisepilot.policies.objective import Matching
from noisepilot.spec import ArraySpec, EnvSpec

from ..policies.parity import Fixture


@dataclass(frozen=True)
class Given(Matching):
    """A matching objective whose times and noise are not drawn but given."""

    t: Tensor
    noise: Tensor

    def loss(self, policy, context, data, generator) -> Tensor:
        return policy.loss(context, data, self.t, self.noise)


def make(config: PolicyConfig, obs: int, action: int, dtype: torch.dtype = torch.float64) -> Policy:
    """A policy whose normalisers change nothing."""
    policy = Policy(config, config.spec({"state": ArraySpec((obs,))}, ArraySpec((action,))))
    for name, dim in (("state", obs), ("action", action)):
        policy.normalizer.set(name, np.zeros(dim), np.ones(dim))
    return policy.to(dtype)


def env_spec(policy: Policy) -> EnvSpec:
    """An environment that the policy fits."""
    return EnvSpec("bandit", policy.spec.obs, policy.spec.action, 10.0, 100)


def transitions(obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, going_on: Tensor) -> Experience:
    """Flat arrays of single actions as transitions."""
    return Experience(
        obs={"state": obs[:, None]},
        action=action[:, None],
        reward=reward.reshape(-1, 1),
        length=torch.ones(len(obs), dtype=torch.long),
        terminated=going_on.reshape(-1) == 0,
        next_obs={"state": next_obs[:, None]},
    )


def load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Weights and nothing else, all of them."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights[name])


def flax_flow(f: Fixture, part: str, prefix: str, chunk: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """An official JAX flow network under our names: its inputs are (obs, action, time), ours (action, time, obs).

    The one-step student has no time input; ours is shown a time of 0, so any weight serves.
    """
    found = {}
    for i in range(5):
        kernel, bias = (f.tensor(f"{prefix}.{part}/mlp/Dense_{i}/{name}", dtype) for name in ("kernel", "bias"))
        if i == 0:
            obs = f.arrays["observations"].shape[1]
            observed, action, time = kernel[:obs], kernel[obs : obs + chunk], kernel[obs + chunk :]
            time = time if len(time) else torch.zeros_like(kernel[:1])
            kernel = torch.cat([action, time, observed])
        found[f"trunk.{2 * i}.weight"], found[f"trunk.{2 * i}.bias"] = kernel.t(), bias
    return found


def flax_critic(f: Fixture, part: str, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """An official JAX value network under our names; a single one becomes an ensemble of one."""
    found = {}
    for i in range(5):
        for layer, theirs, ours in (("Dense", "kernel", "weight"), ("Dense", "bias", "bias")):
            value = f.tensor(f"{prefix}.{part}/value_net/{layer}_{i}/{theirs}", dtype)
            found[f"layers.{i}.{ours}"] = _stacked(value, 3 if ours == "weight" else 2)
    for i in range(4):
        for theirs, ours in (("scale", "weight"), ("bias", "bias")):
            value = f.tensor(f"{prefix}.{part}/value_net/LayerNorm_{i}/{theirs}", dtype)
            found[f"norms.{i}.{ours}"] = _stacked(value, 2)
    return found


def _stacked(value: Tensor, dims: int) -> Tensor:
    value = value[None] if value.dim() < dims else value
    return value if dims == 3 else value[:, None]


def errors(module: nn.Module, theirs: dict[str, Tensor], *, grad: bool = False) -> float:
    """Largest deviation of weights, or gradients, relative to each array's largest element."""
    worst = 0.0
    for name, parameter in module.named_parameters():
        ours = parameter.grad if grad else parameter.detach()
        assert ours is not None
        scale = theirs[name].abs().max().clamp(min=1e-12)
        worst = max(worst, ((ours - theirs[name].to(ours)).abs().max() / scale).item())
    return worst
