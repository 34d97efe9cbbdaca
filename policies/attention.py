"""Attention, and the layer of a transformer that normalises before it acts (Vaswani et al. 2017; Xiong et al. 2020).

Shapes: B batch, N tokens that attend to S, D width, h heads, d = D / h.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import linear

from ..shapes import Float

Seen = tuple[Float[Tensor, "B h S d"], Float[Tensor, "B h S d"]]
"""keys and values that a layer attends to"""
EXPANSION = 4
"""width of the hidden layers in units of the tokens'"""


class Attention(nn.Module):
    """Heads that look at the tokens themselves or at `seen`."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.scale = 1 / math.sqrt(width // heads)
        self.project = nn.Linear(width, 3 * width)  # to queries, keys and values
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def keys_values(self, tokens: Float[Tensor, "B S D"]) -> Seen:
        """What these tokens show to those that attend to them."""
        weight, bias = self.project.weight[self.width :], self.project.bias[self.width :]
        keys, values = linear(tokens, weight, bias).chunk(2, -1)
        return self._by_head(keys), self._by_head(values)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Float[Tensor, "N S"] | None = None, seen: Seen | None = None
    ) -> Float[Tensor, "B N D"]:
        """Attend; `mask` is -inf where a token does not see another, else 0."""
        if seen is None:
            queries, keys, values = map(self._by_head, self.project(x).chunk(3, -1))
        else:
            queries = self._by_head(linear(x, self.project.weight[: self.width], self.project.bias[: self.width]))
            keys, values = seen
        # Not the fused kernel, which has no forward-mode derivative: mean-flow policies need one.
        scores = (queries * self.scale) @ keys.transpose(-1, -2)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        return self.out((self.drop(weights) @ values).transpose(1, 2).flatten(2))

    def _by_head(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B h S d"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, attention to a memory where there is one, and an MLP on each token; each is added."""

    def __init__(self, width: int, heads: int, dropout: float, cross: bool = False) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads, dropout)
        if cross:
            self.cross_norm, self.cross = nn.LayerNorm(width), Attention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        mask: Float[Tensor, "N N"] | None = None,
        seen: Seen | None = None,
        memory_mask: Float[Tensor, "N S"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """The same tokens, each knowing more of the others."""
        x = x + self.drop(self.attention(self.norm(x), mask))
        if seen is not None:
            x = x + self.drop(self.cross(self.cross_norm(x), memory_mask, seen))
        return x + self.drop(self.mlp(self.mlp_norm(x)))
