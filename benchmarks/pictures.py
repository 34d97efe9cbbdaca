"""Training of policies that see: `bc/vit/<variant>` in ms per gradient step, and how often the encoder is called.

DPPO's small ViT on Push-T's camera, 96 x 96 twice, before an MLP. The same gradient step with one draw of time and
noise per observation, with eight, and with eight by a batch that repeats every observation and so encodes it eight
times.

    limit: operations of all products and convolutions / GEMM rate + 28 W / bandwidth
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..algos.bc import BC
from ..policies import Policy
from .limits import BYTES, Limits, default_threads
from .race import Effort, Row, Variant, race, ratios
from .toys import calls, make_seeing, observations

BATCH, DRAWS = 16, 8


def cloning(limits: Limits, effort: Effort) -> Iterator[Row]:
    """Gradient steps on one resident batch, then the encoder calls of one step and the observations in them."""
    batch = min(BATCH, effort.envs)
    steps = {
        "draws1": _step(batch),
        f"draws{DRAWS}": _step(batch, draws=DRAWS),
        f"repeated{DRAWS}": _step(batch, repeats=DRAWS),
    }
    variants = {name: Variant(step, limits.fast_matmul) for name, (_, step) in steps.items()}
    seconds = race(variants, replace(effort, burst=1))  # a call is a large part of a second
    for name, (policy, step) in steps.items():
        faster = ratios(seconds, name, {peer: None for peer in steps if peer != name})
        yield Row(f"bc/vit/{name}", 1e3 * seconds[name], "ms", _least(policy, step, limits) / seconds[name], faster)
    yield Row(f"bc/vit/draws{DRAWS}-over-draws1", seconds[f"draws{DRAWS}"] / seconds["draws1"], "times")
    for name, (policy, step) in steps.items():
        assert policy.network.encoder is not None
        with calls(policy.network.encoder) as counted:
            step()
        yield Row(f"bc/vit/{name}/encoder-calls", float(len(counted)), "per step")
        yield Row(f"bc/vit/{name}/encoded", float(sum(counted)), "observations")


def _step(batch: int, *, draws: int = 1, repeats: int = 1) -> tuple[Policy, Callable[[], Tensor]]:
    policy, algo, generator = make_seeing(), BC(draws=draws), torch.Generator().manual_seed(0)
    obs = {name: x.repeat_interleave(repeats, 0) for name, x in observations(batch, policy).items()}
    action = torch.rand(batch, policy.spec.horizon, policy.spec.action.dim, generator=generator)
    action = action.repeat_interleave(repeats, 0)
    return policy, partial(algo.update, algo.init(policy), obs, action, generator)


def _least(policy: Policy, step: Callable[[], Tensor], limits: Limits) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    held = BYTES * sum(p.numel() for p in policy.network.parameters())
    return counter.get_total_flops() / limits.gemm(default_threads()) + 7 * held / limits.bandwidth(4 * held)
