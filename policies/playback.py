"""Chunks that are played one action per call, every row at its own place (receding horizon, one clock per row).

Shapes: N rows, M some of them, n executed actions per chunk, A action dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..shapes import Bool, Float, Int


class Playback:
    """N rows; a row whose chunk is played to its end is due for the next one."""

    def __init__(self, rows: int, n_action_steps: int) -> None:
        self.chunk = torch.zeros(rows, n_action_steps, 0)
        self.position: Int[Tensor, " N"] = torch.full((rows,), n_action_steps)

    @property
    def due(self) -> Bool[Tensor, " N"]:
        """Rows that need a chunk before they can act."""
        return self.position >= self.chunk.shape[1]

    def restart(self, rows: list[int]) -> None:
        """Forget what these rows were playing."""
        self.position[rows] = self.chunk.shape[1]

    def start(self, rows: Int[Tensor, " M"], chunk: Float[Tensor, "M n A"]) -> None:
        """Play new chunks from their beginning."""
        if self.chunk.shape[2] != chunk.shape[2]:
            self.chunk = chunk.new_zeros(*self.chunk.shape[:2], chunk.shape[2])
        self.chunk[rows.to(chunk.device)] = chunk
        self.position[rows] = 0

    def action(self) -> Float[Tensor, "N A"]:
        """The action to execute next; a due row repeats the last one of its chunk."""
        position = self.position.clamp(max=self.chunk.shape[1] - 1).to(self.chunk.device)
        return self.chunk[torch.arange(len(position), device=self.chunk.device), position]

    def advance(self, rows: Bool[Tensor, " N"] | None = None) -> None:
        """One action was executed, in these rows (all if None)."""
        self.position += 1 if rows is None else rows.to(self.position)


class Remembering:
    """What an actor that plays chunks says of itself: see `actor.Stateful`."""

    playback: Playback | None = None

    def reset(self, rows: list[int] | None = None) -> None:
        """Episodes start in these rows (all if None)."""
        if rows is None or self.playback is None:
            self.playback = None
        else:
            self.playback.restart(rows)

    def due(self) -> Bool[Tensor, " B"] | None:
        """Rows for which the base plans, and so consumes noise, at the next `act`; None: all."""
        return None if self.playback is None else self.playback.due

    def playing(self, rows: int, n_action_steps: int) -> Playback:
        """The playback of so many rows; a fresh one if there was none, or one of other rows."""
        if self.playback is None or len(self.playback.position) != rows:
            self.playback = Playback(rows, n_action_steps)
        return self.playback
