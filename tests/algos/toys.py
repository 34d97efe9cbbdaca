"""Rollouts without a simulator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from noisepilot.algos.dppo import DPPO
from noisepilot.algos.returns import Ends
from noisepilot.algos.rollout import Rollout, RolloutBuffer
from noisepilot.algos.state import ActorCriticState
from noisepilot.policies import CriticMLP

from ..policies.toys import generator, observe

CRITIC = CriticMLP((8, 8, 8))


def rollout_of(
    algo: DPPO,
    state: ActorCriticState,
    g: torch.Generator,
    *,
    decisions: int = 5,
    slots: int = 4,
    reward: Callable[[Tensor], Tensor] = lambda action: action.sum((1, 2)),
    ends: tuple[float, float] = (0.2, 0.2),
) -> Rollout:
    """Decisions on random observations; `ends` are the chances of termination and truncation."""
    buffer = RolloutBuffer(decisions)
    for d in range(decisions):
        action, extras = algo.act(state, observe(state.policy, slots, seed=d), g)
        following = {f"next.{k}": v for k, v in observe(state.policy, slots, seed=d + 1).items()}
        buffer.put(d, {f"extra.{k}": v for k, v in extras.items()} | following | {"reward": reward(action)})
    over = [torch.rand(decisions, slots, generator=generator(i)) < p for i, p in enumerate(ends)]
    return Rollout(buffer.group("extra."), buffer.group("next."), buffer.tensors["reward"], Ends(*over))


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])
