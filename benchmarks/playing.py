"""One policy by everything that can play it: rows `runtime/K<steps>/<player>` and `runtime/unet/<player>`.

Batch 1, one thread, drawing the noise included, from physical observation to physical action. The value is the median,
because a robot waits for every decision and not for the fastest; p99 stands beside it. K = 20 is DDPM, 5 DDIM, 1 a
flow's single step, all by DPPO's network for Hopper; the U-Net is Diffusion Policy's for Push-T, ten steps of DDIM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ..deploy import compiled
from ..deploy.export import PRECISIONS
from ..deploy.runtime.policy import Policy as ExportedPolicy
from ..deploy.runtime.spec import PolicyError
from ..errors import UserError
from ..policies import Policy
from .limits import Limits
from .native import compile_policy
from .peers import DiffusersLoop
from .race import Effort, Row, Variant, spread, times
from .sampling import as_numpy, onnx_file
from .toys import chain_cost, make_policy, make_unet, observations, unet_cost

PEER = "diffusers"
ONNX = ("onnxruntime", "openvino", "openvino-bfloat16")
BURST = 10
"""times more calls than elsewhere, for the 99th percentile"""


def playing(steps: int, limits: Limits, effort: Effort) -> Iterator[Row]:
    """All players of an MLP's chain of `steps`."""
    policy = make_policy(steps)
    players, missing = _onnx_players(policy)
    players["numpy"] = as_numpy(policy)
    for precision in PRECISIONS[".c"]:
        try:
            players[f"c-{precision}"] = compiled.play(*compile_policy(policy, precision))
        except UserError as error:
            missing[f"c-{precision}"] = str(error)
    least = limits.seconds(*chain_cost(policy, 1), 1)
    yield from _rows(f"runtime/K{steps}", policy, players, missing, least, replace(effort, burst=BURST * effort.burst))


def playing_unet(limits: Limits, effort: Effort) -> Iterator[Row]:
    """The same of a U-Net with 256, 512 and 1024 channels, if asked for: minutes."""
    if effort.unet:
        policy = make_unet("pusht")
        players, missing = _onnx_players(policy)
        yield from _rows("runtime/unet", policy, players, missing, limits.seconds(*unet_cost(policy), 1), effort)


def _onnx_players(policy: Policy) -> tuple[dict[str, ExportedPolicy], dict[str, str]]:
    content, players, missing = onnx_file(policy), {}, {}
    for backend in ONNX:
        try:
            players[backend] = ExportedPolicy.from_bytes(content, "the policy", backend)
        except PolicyError as error:
            missing[backend] = str(error)
    return players, missing


def _rows(
    case: str,
    policy: Policy,
    players: dict[str, ExportedPolicy],
    missing: dict[str, str],
    least: float,
    effort: Effort,
) -> Iterator[Row]:
    obs, generator = observations(1, policy), torch.Generator().manual_seed(0)
    variants = {"torch": Variant(partial(policy.act, obs, generator=generator), threads=1)}
    try:
        loop, state = DiffusersLoop(policy), obs["state"].flatten(1)
        variants[PEER] = Variant(lambda: loop(state), threads=1)
    except UserError as error:
        missing[PEER] = str(error)
    arrays = {name: value.numpy() for name, value in obs.items()}
    for name, player in players.items():
        variants[name] = Variant(partial(player.act, arrays, generator=np.random.default_rng(0)), threads=1)
    measured = {name: spread(seconds) for name, seconds in times(variants, effort).items()}
    for name, (p50, p99) in measured.items():
        faster = {PEER: measured[PEER][0] / p50} if PEER in measured and name != PEER else None
        yield Row(f"{case}/{name}", 1e3 * p50, "ms", least / p50, faster, {"p99": 1e3 * p99, "p99/p50": p99 / p50})
    for name, why in missing.items():
        yield Row(f"{case}/{name}", float("nan"), "ms", note=f"not measured: {why}")
