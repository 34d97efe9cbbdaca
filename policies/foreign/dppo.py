"""Checkpoints of DPPO and ReinFlow, and policies that are filled with them.

They come as the official code wrote them, or as plain arrays under `<model or ema>/<official name>`; nothing in them
is run. `dppo_names.py` knows the names, `dppo_sizes.py` what shapes tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ..policy import ACTION, Policy
from .checkpoint import read_arrays, read_checkpoint
from .dppo_names import our_names
from .imported import columns_by_time

PARTS = (
    ("model/actor_ft.policy.", "model/actor_ft.policy."),
    ("model/actor_ft.", "model/actor."),
    ("policy/network.", "policy/network."),
    ("ema/network.", "ema/network."),
    ("model/network.", "model/network."),
)
"""what a file may hold, the best first: tuned by ReinFlow, by DPPO (with its frozen base), alone, averaged, raw"""


@dataclass(frozen=True)
class Official:
    """What is used of a file."""

    path: Path
    prefix: str
    """of the network's names"""
    network: dict[str, Tensor]
    """under our names"""
    base: dict[str, Tensor]
    """the network of the steps that were not tuned; elsewhere the same as `network`"""
    left: dict[str, int]
    """what a policy has no place for: the beginning of the names, and how many there are"""

    @property
    def tuned(self) -> bool:
        """Another network makes the first denoising steps."""
        return self.base is not self.network


def read_official(path: Path, prefix: str = "") -> Official:
    """The network in a checkpoint (`state_*.pt`) or in an archive of arrays (.npz).

    Args:
        path: the file.
        prefix: what precedes the network's names, `ema/network.`; empty: the first of `PARTS` that is there.

    Raises:
        UserError: for a file that cannot be read, or without such names.
    """
    arrays = {k: torch.from_numpy(v) for k, v in read_arrays(path).items()} if path.suffix == ".npz" else _flat(path)
    known = ((prefix, prefix),) if prefix else PARTS
    for start, base in known:
        network, frozen = (_part(arrays, p) for p in (start, base))
        if network:
            used = (start, base)
            left = Counter(_group(name) for name in arrays if not name.startswith(used))
            return Official(path, start, network, frozen if frozen and base != start else network, dict(left))
    wanted = " or ".join(f"'{start}'" for start, _ in known)
    raise UserError(
        f"{path} has no weights named {wanted}: it holds {', '.join(sorted(map(_group, arrays))[:5]) or 'none'}"
    )


def fill(policy: Policy, weights: Official, normalization: Path, finetune_steps: int = 0) -> Policy:
    """A policy with official weights and their minima and maxima; tuned weights after a frozen base's.

    Args:
        policy: built with the official sizes; its states one after the other are the official state.
        weights: as read.
        normalization: .npz with obs_min, obs_max, action_min, action_max.
        finetune_steps: denoising steps that the tuned network makes, where there is another.

    Raises:
        UserError: if names or shapes do not fit, or the number of tuned steps is not known.
    """
    _normalise(policy, normalization)
    _load(policy, weights.base, weights)
    if not weights.tuned:
        if finetune_steps:
            raise UserError(f"{weights.path} holds no frozen base beside its weights: leave out --finetune-steps")
        return policy
    if not finetune_steps:
        raise UserError(
            f"{weights.path} was fine-tuned and does not say how many denoising steps: give ft_denoising_steps of its "
            "configuration as --finetune-steps (official: 10 of 20; with DDIM, all)"
        )
    policy = policy.split(finetune_steps)
    _load(policy, weights.network, weights)
    return policy


def _normalise(policy: Policy, path: Path) -> None:
    limits = read_arrays(path)
    if missing := {"obs_min", "obs_max", "action_min", "action_max"} - limits.keys():
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}: give the official normalization.npz")
    dims = {name: array.dim for name, array in policy.flat_obs.items()}
    total = sum(dims.values())
    if any(limits[f"obs_{end}"].shape != (total,) for end in ("min", "max")):
        states = " + ".join(f"{name} {dim}" for name, dim in dims.items())
        raise UserError(
            f"{path} has {limits['obs_min'].size} numbers of the state, the policy {total} ({states}): name the "
            "states it was made of, in its order (--policy.observe), or choose another environment"
        )
    cuts = np.cumsum(list(dims.values()))[:-1]
    parts = (np.split(limits[f"obs_{end}"], cuts) for end in ("min", "max"))
    for name, low, high in zip(dims, *parts, strict=True):
        policy.normalizer.fit(name, low, high)
    policy.normalizer.fit(ACTION, limits["action_min"], limits["action_max"])


def _load(policy: Policy, named: Mapping[str, Tensor], weights: Official) -> None:
    try:
        policy.network.load_state_dict(_in_order(policy, named))
    except RuntimeError as error:
        what = str(error).splitlines()[1].strip()
        raise UserError(f"{weights.path} does not fit the policy's network: {what}") from None


def _in_order(policy: Policy, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Columns of layers that see the state: there time by time, each with all states, here state by state."""
    states = [(name, array.dim) for name, array in policy.flat_obs.items()]
    columns = columns_by_time(states, states, policy.spec.n_obs_steps)
    expected, ordered = policy.network.state_dict(), dict(named)
    for name in _seeing(named):
        if expected[name].shape == named[name].shape:  # else loading says what does not fit
            ordered[name] = named[name].clone()
            ordered[name][:, -len(columns) :][:, columns] = named[name][:, -len(columns) :]
    return ordered


def _seeing(named: Mapping[str, Tensor]) -> list[str]:
    """Weights whose last columns are for the state."""
    if "condition.0.weight" in named:
        return ["condition.0.weight"]
    return [name for name in named if re.fullmatch(r"trunk\.0\.weight|.*\.film\.[01]\.weight", name)]


def _part(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return our_names({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})


def _group(name: str) -> str:
    top, _, rest = name.partition("/")
    return f"{top}/{rest.partition('.')[0]}" if rest else top


def _flat(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors, named like those of an archive: the top-level name, a slash, the rest."""
    found = {}
    for top, value in read_checkpoint(path).items():
        values = value if isinstance(value, dict) else {"": value}
        found |= {f"{top}/{name}".rstrip("/"): v for name, v in values.items() if isinstance(v, Tensor)}
    return found
