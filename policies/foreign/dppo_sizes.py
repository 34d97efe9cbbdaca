"""The sizes of an official policy, read off the shapes of its weights under our names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...errors import UserError
from ..network import MLP
from ..policy import PolicyConfig
from .dppo import Official


def sized(config: PolicyConfig, weights: Official, obs_dim: int, action_dim: int) -> PolicyConfig:
    """The configuration with the widths, horizon and history of these weights; the rest stays.

    Raises:
        UserError: for weights of no MLP that sees a state, of other observations or actions, or of another kind.
    """
    named, path = weights.network, weights.path
    if not isinstance(config.network, MLP):
        raise UserError("official weights are those of an MLP: choose a recipe whose policy.network is one")
    trunk, condition = _layers(named, "trunk"), _layers(named, "condition")
    if not trunk or "time_embedding.1.weight" not in named:
        groups = sorted({name.partition(".")[0] for name in named})
        raise UserError(f"{path} holds no MLP that sees a state, but {', '.join(groups[:5])}: only those are imported")
    sees_step = named["time_embedding.1.weight"].shape[0] < named["time_embedding.1.weight"].shape[1]
    if sees_step != config.network.step_size:
        raise UserError(
            f"{path} holds a network that {'sees' if sees_step else 'does not see'} the step size: "
            f"import it with {'--kind shortcut' if sees_step else '--kind diffusion or --kind flow'}"
        )
    time_dim = named["time_embedding.3.weight"].shape[0]
    chunk, width_in = trunk[-1][0], trunk[0][1]
    added = bool(condition) and sees_step and width_in == chunk + time_dim
    network = replace(
        config.network,
        hidden=tuple(out for out, _ in trunk[:-1]),
        condition_hidden=tuple(out for out, _ in condition),
        time_dim=time_dim,
        residual=any(".l1." in name for name in named),
        combine="add" if added else "concat",
    )
    features = condition[0][1] if condition else width_in - chunk - time_dim
    horizon = _parts(chunk, action_dim, path, "the chunk", "action")
    history = _parts(features, obs_dim, path, "the observations", "observation")
    steps = min(config.n_action_steps, horizon)
    return replace(config, network=network, horizon=horizon, n_obs_steps=history, n_action_steps=steps)


def _layers(named: dict[str, Tensor], part: str) -> list[tuple[int, int]]:
    """(out, in) of the linear layers of a perceptron, in order; `trunk.3.l2` comes after `trunk.3.l1`."""
    pattern = re.compile(rf"{part}\.(\d+)\.(?:l([12])\.)?weight")
    found = {(int(m[1]), int(m[2] or 0)): v for k, v in named.items() if (m := pattern.fullmatch(k)) and v.dim() == 2}
    return [(found[key].shape[0], found[key].shape[1]) for key in sorted(found)]


def _parts(total: int, dim: int, path: Path, what: str, of: str) -> int:
    if total < 1 or total % dim:
        raise UserError(
            f"{path}: {what} has {total} numbers, no multiple of the environment's {of} of {dim}: choose its recipe"
        )
    return total // dim
