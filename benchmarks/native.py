"""A policy as C source beside the other ways to play it: rows `c/<activation>/K<steps>/<variant>`.

Batch 1, one thread, DPPO's network for Hopper, drawing the noise included. `float32` and `bfloat16` are played from
Python like ONNX Runtime and numpy; `.../call` are the same in C alone, as on a robot. The limit is that of reading all
float32 weights once per step; the C file may pass it, because behind a ReLU it leaves half of them unread.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ..deploy import compiled
from ..deploy.arrays import chain_arrays, chain_facts
from ..deploy.c_source import c_source
from ..deploy.cameras import Cameras
from ..deploy.export import PRECISIONS, describe
from ..deploy.rounding import Precision, rounded
from ..policies import Policy
from ..policies.activation import Activation
from .limits import Limits
from .peers import DiffusersLoop
from .race import Effort, Row, Variant, race, ratios
from .sampling import as_numpy, as_onnx
from .toys import chain_cost, make_policy, observations

FLAGS = ("-O3", "-march=native")


def native(activation: Activation, steps: int, limits: Limits, effort: Effort) -> Iterator[Row]:
    """All variants of one network and number of steps."""
    policy, obs = make_policy(steps, activation), observations(1)
    arrays, state = {name: value.numpy() for name, value in obs.items()}, obs["state"].flatten(1)
    act = {"onnxruntime": as_onnx(policy).act, "numpy": as_numpy(policy).act}
    calls = {}
    for precision in PRECISIONS[".c"]:
        library, metadata = compile_policy(policy, precision)
        act[precision] = compiled.play(library, metadata).act
        calls[f"{precision}/call"] = Variant(_call(library, policy, arrays["state"]), threads=1)
    played = {
        name: Variant(partial(run, arrays, generator=np.random.default_rng(0)), threads=1) for name, run in act.items()
    }
    loop = DiffusersLoop(policy)
    variants = {**played, **calls, "diffusers": Variant(lambda: loop(state), threads=1)}
    seconds, least = race(variants, effort), limits.seconds(*chain_cost(policy, 1), 1)
    peers = {name: variants[name] for name in ("numpy", "onnxruntime", "diffusers")}
    for name in variants:
        faster = None if name in peers else ratios(seconds, name, peers)
        yield Row(f"c/{activation}/K{steps}/{name}", 1e3 * seconds[name], "ms", least / seconds[name], faster)


def compile_policy(policy: Policy, precision: Precision) -> tuple[ctypes.CDLL, dict]:
    """The policy's C source as a library for this processor, and its metadata."""
    metadata = describe(policy, Cameras(policy.spec)) | {"chain": chain_facts(policy) | {"weights": precision}}
    held = rounded(policy, precision) if precision == "bfloat16" else policy
    return compiled.build(c_source(chain_arrays(held), json.dumps(metadata)), FLAGS), metadata


def _call(library: ctypes.CDLL, policy: Policy, state: np.ndarray) -> Callable[[], int]:
    seen, noise = np.ascontiguousarray(state[0]), np.empty(policy.noise_shape, np.float32)
    action = np.empty((policy.spec.horizon, policy.spec.action.dim), np.float32)
    seed = ctypes.c_uint64(0)
    draw = partial(library.noisepilot_draw, ctypes.addressof(seed), noise.ctypes.data)
    act = partial(library.noisepilot_act, seen.ctypes.data, noise.ctypes.data, action.ctypes.data)

    def decide(keep: tuple = (seen, noise, action, seed)) -> int:
        draw()
        return act()

    return decide
