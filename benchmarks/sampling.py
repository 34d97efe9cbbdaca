"""From observation to action chunk, noise included.

Rows: `sampler/batch<B>/K<steps>/<variant>`, `unet/<size>/<variant>`, `rollout/batch40`, and
`decision/<method>/<act or score>`.

Batch 1 is a robot's case and runs on one thread; larger batches take torch's own number of threads, ONNX Runtime
always one. limit = max(2 B K W / GEMM rate, 4 W K / bandwidth), W weights of a folded step.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ..algos.decisions import Decisions
from ..algos.dppo import DPPO
from ..algos.onpolicy import Minibatch, OnPolicy
from ..algos.reinflow import ReinFlow
from ..algos.state import ActorCriticState
from ..deploy.arrays import chain_arrays, chain_facts, pack
from ..deploy.cameras import Cameras
from ..deploy.export import describe
from ..deploy.graph import add_metadata, build_graph
from ..deploy.runtime.policy import Policy as ExportedPolicy
from ..policies import Policy
from ..policies.packed import packed
from .limits import Limits, default_threads
from .peers import DiffusersLoop
from .race import Effort, Row, Variant, race, ratios, settings
from .toys import chain_cost, make_flow, make_policy, make_unet, observations, unet_cost


def sampler(batch: int, steps: int, limits: Limits, effort: Effort) -> Iterator[Row]:
    """All variants of one batch size and number of steps."""
    policy, threads = make_policy(steps), 1 if batch == 1 else default_threads()
    ours = _ours(policy, batch, threads, limits.fast_matmul, effort)
    peers = _peers(policy, batch, threads, limits.fast_matmul)
    seconds = race({**ours, **peers}, effort)
    for name, variant in ours.items():
        least = limits.seconds(*chain_cost(policy, batch), variant.threads or threads)
        yield _row(f"sampler/batch{batch}/K{steps}/{name}", seconds[name], least, ratios(seconds, name, peers))
    for name in peers:
        least = limits.seconds(*chain_cost(policy, batch), threads)
        yield _row(f"sampler/batch{batch}/K{steps}/{name}", seconds[name], least)


def unet(size: str, limits: Limits, effort: Effort) -> Iterator[Row]:
    """One row by DDIM-10, on one thread; `packed` has its weights laid out once, for many decisions."""
    policy, fast = make_unet(size), limits.fast_matmul
    obs, generator = observations(1, policy), torch.Generator().manual_seed(0)
    exported = partial(as_onnx(policy).act, {"state": obs["state"].numpy()}, generator=np.random.default_rng(0))
    laid_out = copy.deepcopy(policy)
    ours = {
        "eager": Variant(partial(policy.act, obs, generator=generator), fast, 1),
        "packed": Variant(partial(laid_out.act, obs, generator=generator), fast, 1),
        "onnxruntime": Variant(exported, threads=1),
    }
    peers = _peers(policy, 1, 1, False)
    with settings(fast, None), packed(laid_out, 1):
        seconds = race({**ours, **peers}, replace(effort, burst=1))  # one call of the large one is half a second
    least = limits.seconds(*unet_cost(policy), 1)
    for name in (*ours, *peers):
        faster = ratios(seconds, name, peers) if name in ours else None
        yield _row(f"unet/{size}/{name}", seconds[name], least, faster)


def rollout(limits: Limits, effort: Effort, batch: int = 40) -> Iterator[Row]:
    """What fine-tuning does at every decision: exploring chunks with their chains and log-probs."""
    algo, policy, obs = DPPO(), make_policy(20), observations(batch)
    state, generator = algo.init(policy), torch.Generator().manual_seed(0)
    threads, fast = default_threads(), limits.fast_matmul
    ours = {"dppo": Variant(lambda: algo.act(state, obs, generator), fast)}
    peers = _peers(policy, batch, threads, fast)
    with settings(fast, None), packed(state.policy, batch):
        seconds = race({**ours, **peers}, effort)
    least = limits.seconds(*chain_cost(policy, batch), threads)
    yield _row(f"rollout/batch{batch}/K20", seconds["dppo"], least, ratios(seconds, "dppo", peers))


def decision(limits: Limits, effort: Effort, batch: int = 40, scored: int = 1_000) -> Iterator[Row]:
    """ReinFlow with K = 4 beside DPPO with K = 20, K' = 10: an exploring decision, and the scores of stored ones."""
    generator, fast = torch.Generator().manual_seed(0), limits.fast_matmul
    contestants = {"dppo-K20": (DPPO(), make_policy(20)), "reinflow-K4": (ReinFlow(), make_flow(4))}
    states = {name: algo.init(base) for name, (algo, base) in contestants.items()}
    obs, many = observations(batch), observations(scored)
    act, score = {}, {}
    for name, (algo, _) in contestants.items():
        act[name] = Variant(partial(algo.act, states[name], obs, generator), fast)
        _, extras = algo.act(states[name], many, generator)
        zero = torch.zeros(scored)
        stored = replace(algo, repeats=1) if isinstance(algo, ReinFlow) else algo
        decisions = Decisions(extras, zero, zero, zero)
        whole = stored.minibatch_of(decisions, torch.arange(stored.samples(decisions)))
        score[name] = Variant(partial(_score, stored, states[name], whole), fast)
    with settings(fast, None):
        for what, variants in (("act", act), ("score", score)):
            seconds = race(variants, effort)
            for name in variants:
                faster = ratios(seconds, name, {"dppo-K20": None}) if name != "dppo-K20" else None
                yield Row(f"decision/{name}/{what}", 1e3 * seconds[name], "ms", None, faster)


@torch.no_grad()
def _score(algo: OnPolicy, state: ActorCriticState, batch: Minibatch) -> None:
    for part in batch.parts(None):
        algo.log_ratio(state, part)


def _ours(policy: Policy, batch: int, threads: int, fast: bool, effort: Effort) -> dict[str, Variant]:
    obs, generator = observations(batch), torch.Generator().manual_seed(0)
    variants = {"eager": Variant(partial(policy.act, obs, generator=generator), fast and batch > 1, threads)}
    if effort.compiled:
        variants["compiled"] = Variant(_compiled(policy, batch, generator), fast and batch > 1, threads)
    exported = {"onnxruntime": as_onnx} if batch <= 40 else {}
    exported |= {"numpy": as_numpy} if batch == 1 else {}
    arrays = {name: value.numpy() for name, value in obs.items()}
    for name, export in exported.items():
        call = partial(export(policy).act, arrays, generator=np.random.default_rng(0))
        variants[name] = Variant(call, threads=1)
    return variants


def _peers(policy: Policy, batch: int, threads: int, fast: bool) -> dict[str, Variant]:
    loop, state = DiffusersLoop(policy), observations(batch, policy)["state"].flatten(1)
    peers = {"diffusers": Variant(lambda: loop(state), threads=threads)}
    if fast and batch > 1:
        peers["diffusers+fast-kernels"] = Variant(lambda: loop(state), True, threads)
    return peers


def _compiled(policy: Policy, batch: int, generator: torch.Generator) -> partial:
    forward, obs = torch.compile(policy.forward), observations(batch)

    @torch.no_grad()
    def act() -> torch.Tensor:
        return forward(policy.encode(obs).features, policy.noise(batch, generator))

    return partial(act)


def as_onnx(policy: Policy) -> ExportedPolicy:
    """The policy as ONNX Runtime plays it."""
    return ExportedPolicy.from_bytes(onnx_file(policy))


def onnx_file(policy: Policy) -> bytes:
    """Content of its `.onnx` file, without a certificate."""
    model = build_graph(policy, Cameras(policy.spec))
    add_metadata(model, json.dumps(describe(policy, Cameras(policy.spec))))
    return model.SerializeToString()


def as_numpy(policy: Policy) -> ExportedPolicy:
    """The policy as numpy plays it."""
    return ExportedPolicy.from_bytes(numpy_file(policy))


def numpy_file(policy: Policy) -> bytes:
    """Content of its `.npz` file, without a certificate."""
    metadata = describe(policy, Cameras(policy.spec)) | {"chain": chain_facts(policy)}
    return pack(chain_arrays(policy), json.dumps(metadata))


def _row(name: str, seconds: float, least: float, faster: dict[str, float] | None = None) -> Row:
    return Row(name, 1e3 * seconds, "ms", least / seconds, faster)
