"""Real-time chunking without training: a flow's chain bent towards the chunk that is being played.

Black et al. 2025, "Real-Time Execution of Action Chunking Flow Policies", arXiv:2506.07339: at every step the velocity
is corrected along the gradient of how far the chunk, as one call sees it, is from the remainder of the chunk before
(pseudo-inverse guidance, Song et al. 2023, with tau the flow's time):

    x1 = x + (1 - tau) v,    v + min(beta, (1 - tau) / tau * (tau^2 + (1 - tau)^2) / (1 - tau)^2) J^T W (previous - x1)

It needs a derivative per step, so it is for policies of several steps in torch; `action_prefix.py` is the form that
is learned in training and exported. Shapes: B batch, N draws, H horizon, A action dim, m remaining actions.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float
from .path import LinearPath
from .policy import Context, Policy
from .sampler import clamp


def guidable(policy: Policy) -> Policy:
    """The policy, if its chain can be guided.

    Raises:
        UserError: unless it is a flow, whole, whose sampler draws no noise at its steps.
    """
    config = policy.config
    flow = isinstance(config.path, LinearPath) and config.predicts == "velocity"
    if not flow or not config.sampler.deterministic or policy.prefix is not None or config.past_actions:
        raise UserError(
            "guidance needs a flow policy (--kind flow) without noise at its steps, frozen steps or past actions: "
            "train one, or train with --policy.max-prefix instead"
        )
    return policy


def prefix_weights(horizon: int, remaining: int, frozen: int) -> Float[Tensor, " H"]:
    """How firmly each action holds to the chunk before: 1 for what is committed, then less, 0 where that chunk ends."""
    i = torch.arange(horizon, dtype=torch.float64)
    c = (remaining - i) / (remaining - frozen + 1)
    soft = c * torch.expm1(c) / (torch.e - 1)
    return torch.where(i < frozen, 1.0, torch.where(i < remaining, soft, 0.0))


def guided_chunk(
    policy: Policy,
    context: Context,
    noise: Float[Tensor, "B N H A"],
    previous: Float[Tensor, "B m A"],
    frozen: int,
    *,
    beta: float = 5.0,
) -> Float[Tensor, "B H A"]:
    """A normalised chunk that goes on with `previous`.

    Args:
        policy: of `guidable`.
        context: the observation's.
        noise: standard normal.
        previous: normalised actions that remain of the chunk before, from the moment of the observation on.
        frozen: how many of them will have been played when the new chunk arrives.
        beta: largest weight of the guidance; the paper's 5.
    """
    sampler, x = policy.config.sampler, noise[:, 0]
    wanted = torch.zeros_like(x)
    wanted[:, : previous.shape[1]] = previous
    weights = prefix_weights(x.shape[1], previous.shape[1], frozen).to(x)[:, None]
    times, grid = policy.embed_times(), policy.transitions().t.tolist()
    for k, (now, after) in enumerate(itertools.pairwise(grid)):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            velocity = policy.network(x, times[k].expand(len(x), -1), context.condition)
            data = clamp(x + (1 - now) * velocity, sampler.clip_data)
            pull = (weights * (wanted - data)).detach()
            (gradient,) = torch.autograd.grad((data * pull).sum(), x)
        x = x + (after - now) * ((data - x) / (1 - now) + _strength(now, beta) * gradient)
        x = clamp(x, sampler.clip_mean).detach()
    return x


def _strength(tau: float, beta: float) -> float:
    return beta if tau == 0 else min(beta, (tau**2 + (1 - tau) ** 2) / (tau * (1 - tau)))
