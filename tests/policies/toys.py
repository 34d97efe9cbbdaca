"""Tiny policies of every kind, and ways to look inside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from noisepilot.policies import MLP, CosinePath, LinearPath, Policy, PolicyConfig, Sampler
from noisepilot.policies.denoiser import Denoiser
from noisepilot.spec import ArraySpec

TINY = MLP(hidden=(12, 12, 12), condition_hidden=(6,), time_dim=4, activation="mish")
KINDS = {
    "ddpm": PolicyConfig(TINY, CosinePath(20), Sampler(20, eta=1.0)),
    "ddpm data": PolicyConfig(TINY, CosinePath(20), Sampler(20, eta=1.0), "data"),
    "ddim": PolicyConfig(TINY, CosinePath(20), Sampler(5, eta=0.0)),
    "ddim eta": PolicyConfig(TINY, CosinePath(20), Sampler(5, eta=0.5)),
    "flow": PolicyConfig(TINY, LinearPath(), Sampler(4, eta=0.0), "velocity"),
    "flow data": PolicyConfig(TINY, LinearPath(), Sampler(4, eta=0.0), "data"),
}


def tiny(
    kind: str = "ddpm",
    *,
    steps: int | None = None,
    dtype: torch.dtype = torch.float64,
    obs: dict[str, int] | None = None,
    action_dim: int = 2,
    scale: bool = True,
    seed: int = 0,
    **changes,
) -> Policy:
    """A policy with random weights; `changes` replace fields of its configuration."""
    config = replace(KINDS[kind], **{"horizon": 3, "n_action_steps": 2, "n_obs_steps": 2, **changes})
    if steps is not None:
        config = replace(config, sampler=replace(config.sampler, steps=steps))
    torch.manual_seed(seed)
    sizes = obs or {"state": 3}
    policy = Policy(config, config.spec({k: ArraySpec((d,)) for k, d in sizes.items()}, ArraySpec((action_dim,))))
    for i, (name, dim) in enumerate({**sizes, "action": action_dim}.items()):
        center, half = (
            (0.1 * i + np.arange(dim) / 7, 1.5 + np.arange(dim) / 3) if scale else (np.zeros(dim), np.ones(dim))
        )
        policy.normalizer.set(name, center, half)
    return policy.to(dtype)


def observe(policy: Policy, batch: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random physical observations."""
    g = generator(seed)
    steps = policy.spec.n_obs_steps
    return {
        k: torch.randn(batch, steps, *s.shape, generator=g, dtype=torch.float64).to(policy.dtype)
        for k, s in policy.spec.obs.items()
    }


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jolt(module: torch.nn.Module, size: float = 0.1, seed: int = 9) -> None:
    """Move every weight a little, as training would."""
    g = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += size * torch.randn(p.shape, generator=g, dtype=torch.float64).to(p.dtype)


def check_fold(network: Denoiser, x: torch.Tensor, features: torch.Tensor, steps: int = 6) -> None:
    """Walking a chain by `fold`, the network's own or the plain one, is the same network."""
    condition = network.condition(features)
    assert condition.shape == (len(x), network.condition_dim)
    times = network.time_embedding(torch.arange(steps, dtype=torch.float64))
    assert times.shape == (steps, network.time_dim)
    own, plain = network.fold(times, condition), Denoiser.fold(network, times, condition)
    for k in range(steps):
        forward = network(x, times[k].expand(len(x), -1), condition)
        assert forward.shape == x.shape
        assert (forward - network(x, times[k - 1].expand(len(x), -1), condition)).abs().max() > 1e-6  # it sees the time
        for folded in (own, plain):
            assert (folded(k, x) - forward).abs().max() < 1e-12
