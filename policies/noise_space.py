"""Spaces of initial noise: what a policy over noise chooses from (DSRL, Wagenmaker et al. 2025, arXiv:2506.15799).

The noise of a whole chunk has H * A numbers; few of them matter, so it may be spanned by fewer coefficients.
Shapes: B batch, H horizon, A action dim, R rows of coefficients, D = R * A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float


@dataclass(frozen=True)
class NoiseSpace:
    """R * A coefficients within +-`bound`; standard normal ones give noise of variance 1 at every step."""

    kind: Literal["full", "repeat", "low_rank"] = "full"
    """full: every number (R = H). repeat: one step's noise for all steps (R = 1, as in DSRL on pi0). low_rank: the
    `rank` smoothest cosines over the horizon"""
    bound: float = 1.0
    """largest coefficient. The base knows noise of about +-2; beyond that its actions mean little"""
    rank: int = 2
    """R of low_rank"""

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            raise UserError(f"the noise bound must be positive and finite, got {self.bound:g}: 1 to 2.5 is usual")
        if self.rank < 1:
            raise UserError(f"the rank of the noise must be at least 1, got {self.rank}")

    def rows(self, horizon: int) -> int:
        """R: coefficients per action dimension.

        Raises:
            UserError: for a rank beyond the horizon.
        """
        if self.kind == "low_rank" and self.rank > horizon:
            raise UserError(f"the rank {self.rank} of the noise exceeds the horizon {horizon}: ask for at most that")
        return {"full": horizon, "repeat": 1, "low_rank": self.rank}[self.kind]

    def expand(self, w: Float[Tensor, "B D"], horizon: int) -> Float[Tensor, "B 1 H A"]:
        """Initial noise from coefficients."""
        w = w.unflatten(1, (self.rows(horizon), -1))
        if self.kind == "repeat":
            w = w.expand(-1, horizon, -1)
        elif self.kind == "low_rank":
            w = cosines(horizon, self.rank).to(w) @ w
        return w[:, None]


@lru_cache(maxsize=16)
def cosines(horizon: int, rank: int) -> Float[Tensor, "H R"]:
    """The first `rank` functions of the cosine transform (DCT-II), every row of length 1."""
    step, k = torch.arange(horizon, dtype=torch.float64) + 0.5, torch.arange(rank, dtype=torch.float64)
    basis = torch.cos(math.pi / horizon * step[:, None] * k)
    return basis / basis.norm(dim=1, keepdim=True)
