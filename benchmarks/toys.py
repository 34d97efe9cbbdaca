"""The policy that is measured: DPPO's network for Gym (Hopper), random weights; and what it costs on paper.

Observation 11, chunk 4 x 3, residual MLP (512, 512, 512), time embedding 16; cosine path of 20 levels. One step
goes the straight path instead. Shapes: B batch, K steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..policies import LinearPath, Policy, PolicyConfig, Sampler
from ..spec import ArraySpec
from .limits import BYTES

OBS, ACTION = 11, 3


def make_policy(steps: int) -> Policy:
    """DDPM for the 20 steps of training, DDIM for fewer, one Euler step of a flow for 1."""
    if steps == 1:
        return make_flow(1)
    return _policy(PolicyConfig(sampler=Sampler(steps, eta=1.0 if steps == 20 else 0.0)))


def make_flow(steps: int) -> Policy:
    """Euler steps of a rectified flow."""
    sampler = Sampler(steps, eta=0.0, clip_data=None, clip_mean=1.0)
    return _policy(PolicyConfig(path=LinearPath(), sampler=sampler, predicts="velocity"))


def _policy(config: PolicyConfig) -> Policy:
    torch.manual_seed(0)
    policy = Policy(config, config.spec({"state": ArraySpec((OBS,))}, ArraySpec((ACTION,))))
    policy.normalizer.set("state", np.zeros(OBS), np.ones(OBS))
    policy.normalizer.set("action", np.zeros(ACTION), np.ones(ACTION))
    return policy.eval()


def observations(batch: int) -> dict[str, Tensor]:
    """Random ones."""
    return {"state": torch.randn(batch, 1, OBS, generator=torch.Generator().manual_seed(1))}


def weights(module: nn.Module) -> int:
    """Elements of the matrices that a call multiplies with."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def chain_weights(policy: Policy) -> int:
    """The same for one denoising step, where time and observation have been folded away."""
    trunk = policy.network.trunk
    first = trunk[0]
    assert isinstance(first, nn.Linear)
    chunk = policy.spec.horizon * policy.spec.action.dim
    return weights(trunk) - first.weight.numel() + first.out_features * chunk


def chain_cost(policy: Policy, batch: int) -> tuple[float, float, int]:
    """Operations of a whole chain, bytes of its weights, and how often they are read.

    operations = 2 B K W with W weights per step; bytes = 4 W, read K times.
    """
    steps, per_step = policy.config.sampler.steps, chain_weights(policy)
    return 2.0 * batch * steps * per_step, float(BYTES * per_step), steps
