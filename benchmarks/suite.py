"""All cases by name. A name chooses every case, or row, that it begins."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

from ..envs.threads import cores
from ..errors import UserError, unknown
from ..policies.matmul import use_fast_matmul
from .frames import random_frames, sequential_frames
from .limits import Limits, default_threads
from .native import native
from .offpolicy import diffusion_q_learning, flow_q_learning
from .pictures import cloning
from .playing import playing, playing_unet
from .race import Effort, Row, settings
from .sac import soft_actor_critic
from .sampling import decision, rollout, sampler, unet
from .serving import serving
from .stepping import TASKS, stepping
from .training import behaviour_cloning, dppo_iteration, reinflow_iteration
from .views import tuning

Case = Callable[[Limits, Effort], Iterator[Row]]
CASES: dict[str, Case] = {
    **{
        f"sampler/batch{batch}/K{steps}": partial(sampler, batch, steps)
        for batch in (1, 40, 1000)
        for steps in (20, 10, 5, 1)
    },
    **{f"unet/{size}": partial(unet, size) for size in ("small", "pusht")},
    "c/relu/K20": partial(native, "relu", 20),
    "c/relu/K1": partial(native, "relu", 1),
    "c/mish/K20": partial(native, "mish", 20),
    **{f"runtime/K{steps}": partial(playing, steps) for steps in (20, 5, 1)},
    "runtime/unet": playing_unet,
    "rollout/batch40": rollout,
    "decision": decision,
    **{f"env/{env}": partial(stepping, env) for env in TASKS},
    "bc/batch128": behaviour_cloning,
    "bc/vit": cloning,
    "dppo/vit": tuning,
    "dppo": dppo_iteration,
    "reinflow": reinflow_iteration,
    "data/random": random_frames,
    "data/sequential": sequential_frames,
    "serve": serving,
    "offpolicy/sac": soft_actor_critic,
    "offpolicy/dql": diffusion_q_learning,
    "offpolicy/fql": flow_q_learning,
}


def choose(names: Sequence[str]) -> list[str]:
    """The cases that hold rows beginning with one of the names; all without names.

    Raises:
        UserError: for a name that fits no case.
    """
    for name in names:
        if not any(_touches(name, case) for case in CASES):
            raise unknown("benchmark", name, CASES)
    return [case for case in CASES if not names or any(_touches(name, case) for name in names)]


def run(names: Sequence[str], effort: Effort) -> Iterator[Row]:
    """Measure the chosen cases, row by row.

    Raises:
        UserError: for a name that no row begins with, or a missing package.
    """
    chosen = choose(names)
    with settings(False, None):
        fast = use_fast_matmul()
    limits, unused = Limits(effort, fast), set(names)
    for case in chosen:
        for row in CASES[case](limits, effort):
            wanted = {name for name in names if row.name.startswith(name)}
            unused -= wanted
            if wanted or not names:
                yield row
    if unused:
        raise UserError(f"no row begins with '{min(unused)}': leave the last part of the name out to see all")
    yield from _limit_rows(limits)


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "torch_threads": default_threads(),
        "load": round(os.getloadavg()[0], 2) if "getloadavg" in dir(os) else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "mujoco", "gymnasium")},
    }


def as_dict(row: Row) -> dict[str, Any]:
    """A row as JSON values."""
    value = None if math.isnan(row.value) else row.value
    return {**asdict(row), "value": value, "ratios": dict(row.ratios or {}), "spread": dict(row.spread or {})}


def _limit_rows(limits: Limits) -> Iterator[Row]:
    for (kind, what), rate in limits.known.items():
        if kind == "gemm":
            yield Row(f"limit/gemm/threads{what}", rate / 1e9, "GFLOP/s")
        elif kind == "bandwidth":
            yield Row(f"limit/read/{what / 1e6:.1f}MB", rate / 1e9, "GB/s")
        else:
            yield Row(f"limit/mj_step/{kind.removesuffix('.xml')}", rate, "steps/s")


def _touches(name: str, case: str) -> bool:
    return case.startswith(name) or name.startswith(case + "/")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            found = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        found = []
    return found[0] if found else platform.processor() or platform.machine()
