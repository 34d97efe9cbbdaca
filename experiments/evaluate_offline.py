"""How far a policy's actions are from held-out demonstrations, for those who have data and no simulator.

A small error is no success rate: it says that the policy imitates, and where along the chunk and in which
joint it does not. B windows, H horizon, A action dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..envs.seeds import noise_generator
from ..errors import UserError
from ..policies.actor import Actor


@runtime_checkable
class Windows(Protocol):
    """Chunks of held-out episodes, see `datasets`."""

    def __len__(self) -> int:
        """Number of windows."""
        ...

    def batch(self, indices: Any) -> Any:
        """Observations name -> (B, T, ...) as `.obs` and actions (B, H, A) as `.action`."""
        ...


@dataclass(frozen=True, eq=False)
class OfflineErrors:
    """Action errors by horizon step and dimension."""

    absolute: np.ndarray
    """(H, A) mean absolute error in physical units"""
    normalised: np.ndarray
    """(H, A) root mean square error over the data's standard deviation: always saying the mean scores 1"""
    names: tuple[str, ...]
    """(A,) action dimensions"""
    windows: int

    def table(self) -> list[dict[str, Any]]:
        """One row per action dimension: the error at the first and last step, and over the whole chunk."""
        return [
            {
                "dimension": name,
                "error": float(absolute.mean()),
                "normalised": float(normalised.mean()),
                "first_step": float(normalised[0]),
                "last_step": float(normalised[-1]),
            }
            for name, absolute, normalised in zip(self.names, self.absolute.T, self.normalised.T, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return dataclasses.asdict(self) | {
            "absolute": self.absolute.tolist(),
            "normalised": self.normalised.tolist(),
        }


def evaluate_offline(actor: Actor, windows: Windows, *, batch: int = 256, seed: int = 0) -> OfflineErrors:
    """Compare the actor's chunks with those of held-out windows, one noise per window fixed by `seed`.

    Raises:
        UserError: for no windows, or windows of another horizon than the policy's.
    """
    if len(windows) == 0:
        raise UserError("no held-out windows: hold out more episodes")
    rng = noise_generator(seed)
    wanted, given = [], []
    for start in range(0, len(windows), batch):
        indices = torch.arange(start, min(start + batch, len(windows)))
        part = windows.batch(indices)
        noise = rng.standard_normal((len(indices), *actor.noise_shape), dtype=np.float32)
        with torch.no_grad():
            action = actor.act(part.obs, noise=torch.from_numpy(noise).to(part.action.device))
        if action.shape != part.action.shape:
            raise UserError(
                f"policy predicts chunks {tuple(action.shape[1:])}, data has {tuple(part.action.shape[1:])}: "
                "give data of the policy's own robot, cut with its horizon"
            )
        wanted.append(_double(part.action))
        given.append(_double(action))
    return _errors(np.concatenate(wanted), np.concatenate(given), actor.spec.action.names)


def _errors(wanted: np.ndarray, given: np.ndarray, names: tuple[str, ...]) -> OfflineErrors:
    spread = wanted.std((0, 1))
    # A dimension that never moves has no spread to compare with: its error stays in physical units.
    scale = np.where(spread > 1e-8, spread, 1.0)
    return OfflineErrors(
        absolute=np.abs(given - wanted).mean(0),
        normalised=np.sqrt(((given - wanted) ** 2).mean(0)) / scale,
        names=names or tuple(f"action[{i}]" for i in range(wanted.shape[-1])),
        windows=len(wanted),
    )


def _double(action: Tensor) -> np.ndarray:
    return action.detach().cpu().double().numpy()
