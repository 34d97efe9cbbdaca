"""The parity certificate: how far an exported policy, played by the runtime, is from the policy in torch.

Shapes: N observations, T history, D elements, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..policies.action_prefix import ActionPrefix
from ..policies.normalizer import ACTION
from .arrays import Scaled, center_half
from .cameras import Cameras
from .runtime.spec import PolicyError

TOLERANCE = 1e-4
"""largest difference allowed, as a fraction of each action's range"""
MOST, MOST_PICTURES = 256, 32
"""observations compared, without and with pictures"""


@runtime_checkable
class Compared(Scaled, Protocol):
    """One side: float32, on the CPU."""

    def noise(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise for whole decisions."""
        ...

    def act(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Physical actions (B, H, A)."""
        ...


@runtime_checkable
class Playing(Protocol):
    """The other side: what the runtime plays."""

    def act(self, obs: Mapping[str, Any], noise: Any, *, prefix: Any = None) -> np.ndarray:
        """Physical actions (H, A) of one observation, begun with `prefix` where the policy knows such."""
        ...


def certify(
    policy: Compared,
    cameras: Cameras,
    exported: Playing,
    observations: Mapping[str, Tensor] | None,
    backend: str,
    unrounded: Compared | None = None,
) -> dict[str, Any]:
    """Compare both on the same observations and noise, one decision at a time as on a robot.

    Args:
        policy: float32, on the CPU.
        cameras: what the file makes of the robot's pictures.
        exported: the file's content, opened by the runtime.
        observations: recorded ones, name -> (N, T, ...); None: drawn uniformly within the normaliser's range.
        backend: what ran the exported policy, with its version.
        unrounded: what `policy` was before its weights were rounded. Nothing is refused for what that changed; the
            certificate says how much.

    Raises:
        UserError: if they differ by more than the tolerance, or observations do not fit the policy.
    """
    generator = torch.Generator().manual_seed(0)
    obs = _drawn(policy, cameras, generator) if observations is None else _chosen(observations, cameras, generator)
    noise = policy.noise(len(next(iter(obs.values()))), generator)
    prefix = _prefixes(policy, cameras(obs), generator)
    ours = policy.act(cameras(obs) | prefix, noise).numpy()
    begun = [a[:n] for a, n in zip(*prefix.values(), strict=True)] if prefix else [None] * len(noise)
    try:
        rows = ({k: v[i] for k, v in obs.items()} for i in range(len(noise)))
        theirs = np.stack([exported.act(row, noise[i], prefix=begun[i]) for i, row in enumerate(rows)])
    except PolicyError as error:
        raise UserError(f"the exported policy refuses the recorded data: {error}") from None
    difference = np.abs(ours - theirs)  # (N, H, A)
    relative = float((difference / action_span(policy)).max())
    if not relative <= TOLERANCE:
        raise UserError(
            f"not exported: {backend} differs from torch by {relative:.1e} of the action range, "
            f"more than {TOLERANCE:.0e}; try another version of it"
        )
    certificate = {
        "max_difference": float(difference.max()),
        "max_relative_difference": relative,
        "tolerance": TOLERANCE,
        "observations": len(noise),
        "source": "drawn within the normaliser's range" if observations is None else "recorded",
        "backend": backend,
        "torch": torch.__version__,
    }
    if unrounded is not None:
        moved = np.abs(ours - unrounded.act(cameras(obs) | prefix, noise).numpy()) / action_span(policy)
        rounding = {"mean_relative_difference": float(moved.mean()), "max_relative_difference": float(moved.max())}
        certificate["rounding"] = rounding
    return certificate


def _prefixes(policy: Compared, obs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    # Beginnings of chunks that the policy might have been playing.
    if not policy.spec.max_prefix:
        return {}
    prefix = ActionPrefix(policy.spec.max_prefix, policy.spec.action.dim)
    return prefix.draw(policy.act(obs, policy.noise(len(next(iter(obs.values()))), generator)), generator)


def action_span(policy: Scaled) -> np.ndarray:
    """Range of each action that the normaliser maps to [-1, 1]; shape (A,); 1 for an action that never changes."""
    half = center_half(policy, ACTION)[1]
    return np.where(half > 0, 2 * half, 1)


def _chosen(observations: Mapping[str, Tensor], cameras: Cameras, generator: torch.Generator) -> dict[str, Tensor]:
    # Evenly spread, so that recorded episodes are covered from their start to their end.
    count = len(next(iter(observations.values())))
    rows = torch.linspace(0, count - 1, min(count, _most(cameras))).long()
    taken = {name: value[rows] for name, value in observations.items()}
    taken = {name: value if value.dtype == torch.uint8 else value.float() for name, value in taken.items()}
    for name in cameras.pictures.keys() & taken.keys():
        if taken[name].shape[2:] != cameras.obs[name].shape:  # recorded as the policy sees, not as this camera does
            taken[name] = cameras.sample(name, tuple(taken[name].shape[:2]), generator)
    return taken


def _drawn(policy: Scaled, cameras: Cameras, generator: torch.Generator) -> dict[str, Tensor]:
    drawn = {}
    for name, spec in policy.spec.obs.items():
        if name in cameras.pictures:
            drawn[name] = cameras.sample(name, (_most(cameras), policy.spec.n_obs_steps), generator)
            continue
        center, half = (torch.from_numpy(v) for v in center_half(policy, name))
        unit = torch.rand(_most(cameras), policy.spec.n_obs_steps, *spec.shape, generator=generator)
        drawn[name] = center + (2 * unit - 1) * half
    return drawn


def _most(cameras: Cameras) -> int:
    return MOST_PICTURES if cameras.pictures else MOST
