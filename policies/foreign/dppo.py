"""Weights of the official DPPO and ReinFlow code in our policies.

The official names are those of irom-lab/dppo's `DiffusionMLP` and `CriticObs` and of ReinFlow's `FlowMLP`,
`ShortCutFlowMLP` and noise network. They come as a checkpoint that the official code wrote, or as plain arrays under
`<model or ema>/<official name>`; nothing is unpickled.
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
from .checkpoint import read_checkpoint

_NAMES = (
    (r"(Q1|mlp_mean|vel_head)\.layers\.(\d+)\.", r"trunk.\2."),
    (r"(Q1|mlp_mean|vel_head|mlp_logvar)\.moduleList\.(\d+)\.linear_1\.", lambda m: f"trunk.{2 * int(m[2])}."),
    (r"(cond_mlp|cond_emb)\.moduleList\.(\d+)\.linear_1\.", lambda m: f"condition.{2 * int(m[2])}."),
    (r"t_emb\.(\d)\.", lambda m: f"time_embedding.{1 + int(m[1])}."),
    (r"explore_noise_net\.", "noise."),
)
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


def rename(name: str) -> str:
    """Our name of an official parameter."""
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name


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
    """A state policy with official weights and their minima and maxima; tuned weights after a frozen base's.

    Args:
        policy: built with the official sizes; its single observation is the state.
        weights: as read.
        normalization: .npz with obs_min, obs_max, action_min, action_max.
        finetune_steps: denoising steps that the tuned network makes, where there is another.

    Raises:
        UserError: if names or shapes do not fit, or the number of tuned steps is not known.
    """
    limits = read_arrays(normalization)
    if missing := {"obs_min", "obs_max", "action_min", "action_max"} - limits.keys():
        raise UserError(f"{normalization} lacks {', '.join(sorted(missing))}: give the official normalization.npz")
    if len(policy.spec.obs) != 1:
        raise UserError(f"official weights see one state, this policy {list(policy.spec.obs)}: choose another recipe")
    (state,) = policy.spec.obs
    policy.normalizer.fit(state, limits["obs_min"], limits["obs_max"])
    policy.normalizer.fit(ACTION, limits["action_min"], limits["action_max"])
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


def _load(policy: Policy, named: Mapping[str, Tensor], weights: Official) -> None:
    try:
        policy.network.load_state_dict(named)
    except RuntimeError as error:
        what = str(error).splitlines()[1].strip()
        raise UserError(f"{weights.path} does not fit the recipe's network: {what}") from None


def _part(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {rename(k.removeprefix(prefix)): v for k, v in arrays.items() if k.startswith(prefix)}


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


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Raises:
        UserError: if it cannot be read, or holds pickles.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable .npz file ({error}): give the arrays as .npz") from None
