"""Weights of the official DPPO and ReinFlow code, as plain arrays, in our policies.

The official names are those of irom-lab/dppo's `DiffusionMLP` and `CriticObs` and of ReinFlow's `FlowMLP`,
`ShortCutFlowMLP` and noise network; arrays come as .npz, never pickled.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from .policy import ACTION, Policy

_NAMES = (
    (r"(Q1|mlp_mean|vel_head)\.layers\.(\d+)\.", r"trunk.\2."),
    (r"(Q1|mlp_mean|vel_head|mlp_logvar)\.moduleList\.(\d+)\.linear_1\.", lambda m: f"trunk.{2 * int(m[2])}."),
    (r"(cond_mlp|cond_emb)\.moduleList\.(\d+)\.linear_1\.", lambda m: f"condition.{2 * int(m[2])}."),
    (r"t_emb\.(\d)\.", lambda m: f"time_embedding.{1 + int(m[1])}."),
    (r"explore_noise_net\.", "noise."),
)


def rename(name: str) -> str:
    """Our name of an official parameter."""
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name


def load_official_weights(policy: Policy, weights: Path, normalization: Path, prefix: str = "ema/network.") -> Policy:
    """Fill a state policy with official weights and their minima and maxima.

    Args:
        policy: built with the official sizes; its single observation is the state.
        weights: .npz of arrays named `prefix` + official name.
        normalization: .npz with obs_min, obs_max, action_min, action_max.
        prefix: `ema/network.` (what fine-tuning starts from) or `model/network.`.

    Raises:
        UserError: if names or shapes do not fit.
    """
    arrays = read_arrays(weights)
    named = {rename(k.removeprefix(prefix)): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
    try:
        policy.network.load_state_dict(named)
    except RuntimeError as error:
        raise UserError(f"{weights} does not fit the recipe's network: {str(error).splitlines()[1].strip()}") from None
    limits = read_arrays(normalization)
    if missing := {"obs_min", "obs_max", "action_min", "action_max"} - limits.keys():
        raise UserError(f"{normalization} lacks {', '.join(sorted(missing))}: give the official normalization.npz")
    if len(policy.spec.obs) != 1:
        raise UserError(f"official weights see one state, this policy {list(policy.spec.obs)}: choose another recipe")
    (state,) = policy.spec.obs
    policy.normalizer.fit(state, limits["obs_min"], limits["obs_max"])
    policy.normalizer.fit(ACTION, limits["action_min"], limits["action_max"])
    return policy


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
