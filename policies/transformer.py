"""The diffusion transformer of Diffusion Policy (Chi et al. 2023, https://arxiv.org/abs/2303.04137).

Every action of the noisy chunk is a token. Time and the observations are tokens too: a memory that the chunk's tokens
attend to, or the beginning of the same sequence.
Shapes: B batch, T observations, H horizon, A action dim, F features of the observation, C condition, D width,
h heads, d = D / h, K steps, N tokens that attend to S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UserError, at_least, fractions
from ..shapes import Float
from .activation import Mish
from .attention import EXPANSION, Block, Seen
from .denoiser import Denoiser, Sizes
from .network import Sinusoid, TimeEmbedding
from .sampler import Step

INIT_STD = 0.02
"""of fresh weights and positions; biases begin at 0"""


@dataclass(frozen=True)
class Transformer:
    """Diffusion Policy's transformer; `build` makes it. Defaults are its settings for states."""

    layers: int = 8
    heads: int = 4
    width: int = 256
    """of every token"""
    condition_layers: int = 0
    """self-attending layers over time and observations; 0: an MLP on each of these tokens alone"""
    cross: bool = True
    """time and observations are a memory to attend to; False: they begin the sequence that the chunk ends"""
    causal: bool = True
    """no action sees a later one, nor an observation later than itself"""
    first: Literal["newest", "oldest"] = "newest"
    """the observation that the first action belongs to; Diffusion Policy's own chunks begin at the oldest"""
    dropout: float = 0.3
    """share of attention and of layers' outputs dropped, in behaviour cloning alone"""
    token_dropout: float = 0.0
    """share of the tokens' elements dropped there"""
    step_size: bool = False
    """the network also sees how far the step goes (shortcut and mean-flow policies)"""

    def __post_init__(self) -> None:
        at_least(1, self, "layers", "heads")
        at_least(0, self, "condition_layers")
        fractions(self, "dropout", "token_dropout")
        if self.width < 4 or self.width % 2 or self.width % self.heads:
            raise UserError(
                f"width {self.width} must be even, at least 4 and a multiple of heads {self.heads}: change one of them"
            )
        if self.condition_layers and not self.cross:
            raise UserError("condition_layers make a memory to attend to: set cross to True, or condition_layers to 0")

    def build(self, sizes: Sizes) -> DenoisingTransformer:
        """The network for observations and chunks of these sizes.

        Raises:
            UserError: for observations that are not told apart by time.
        """
        sizes.require_times()
        return DenoisingTransformer(self, sizes)


class TimeWaves(Sinusoid):
    """The time as sines and cosines; the network is not shown how far a step goes."""

    def forward(self, t: Float[Tensor, " B"], d: Float[Tensor, " B"] | None = None) -> Float[Tensor, "B E"]:
        """Embed times."""
        return super().forward(t)


class Memory(nn.Module):
    """Time and observations as tokens; its own forward is the part that knows no time, flat: C = T D."""

    def __init__(self, config: Transformer, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.width = sizes, config.width
        self.tokens = sizes.n_obs_steps if sizes.obs else 0
        """T, or none where nothing is observed"""
        self.mixes = config.condition_layers > 0
        """tokens see each other, so what is known of the observations depends on the time"""
        if self.tokens:
            self.embed = nn.Linear(sum(sizes.obs), config.width)
        self.position = nn.Parameter(torch.empty(1 + self.tokens, config.width))
        self.drop = nn.Dropout(config.token_dropout)
        if self.mixes:
            self.encoder = nn.Sequential(
                *(Block(config.width, config.heads, config.dropout) for _ in range(config.condition_layers))
            )
        elif config.cross:
            hidden = EXPANSION * config.width
            self.encoder = nn.Sequential(nn.Linear(config.width, hidden), Mish(), nn.Linear(hidden, config.width))
        else:
            self.encoder = nn.Identity()

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B C"]:
        """Tokens of the observations, one after the other."""
        if not self.tokens:
            return features
        tokens = self.drop(self.embed(self.sizes.by_time(features)) + self.position[1:])
        return (tokens if self.mixes else self.encoder(tokens)).flatten(1)

    def of_observations(self, condition: Float[Tensor, "B C"]) -> Float[Tensor, "B T D"]:
        """The condition as tokens again."""
        return condition.unflatten(1, (self.tokens, self.width))

    def of_time(self, time: Float[Tensor, "B D"]) -> Float[Tensor, "B 1 D"]:
        """The token of a time."""
        token = self.drop(time + self.position[0])[:, None]
        return token if self.mixes else self.encoder(token)

    def join(self, time: Float[Tensor, "B D"], condition: Float[Tensor, "B C"]) -> Float[Tensor, "B S D"]:
        """The whole memory: the time's token, then the observations'."""
        tokens = torch.cat([self.of_time(time), self.of_observations(condition)], 1)
        return self.encoder(tokens) if self.mixes else tokens


class DenoisingTransformer(Denoiser):
    """Tokens of the chunk attend to each other and to the memory; `condition` makes the observations' part of it."""

    condition: Memory

    def __init__(self, config: Transformer, sizes: Sizes) -> None:
        super().__init__()
        self.cross, self.drops = config.cross, max(config.dropout, config.token_dropout) > 0
        self.time_embedding = (
            TimeEmbedding(config.width, 2 * config.width, True) if config.step_size else TimeWaves(config.width)
        )
        self.condition = Memory(config, sizes)
        self.time_dim, self.condition_dim = config.width, self.condition.tokens * config.width
        self.embed = nn.Linear(sizes.action_dim, config.width)
        self.position = nn.Parameter(torch.empty(sizes.horizon, config.width))
        self.drop = nn.Dropout(config.token_dropout)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout, config.cross) for _ in range(config.layers)
        )
        self.norm, self.head = nn.LayerNorm(config.width), nn.Linear(config.width, sizes.action_dim)
        mask, memory_mask = masks(config, sizes.horizon, self.condition.tokens)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("memory_mask", memory_mask, persistent=False)
        self.apply(_initialise)
        self.eval()  # a policy is a function of its input; `dropping` makes the exception

    def forward(
        self, x: Float[Tensor, "B H A"], time: Float[Tensor, "B E"], condition: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """One call per row; `time` comes from `time_embedding`, `condition` from `condition`."""
        memory = self.condition.join(time, condition)
        if self.cross:
            return self._decode(self._tokens(x), [block.cross.keys_values(memory) for block in self._blocks()])
        sequence = torch.cat([memory, self._tokens(x)], 1)
        return self._decode(sequence, [None] * len(self.blocks))[:, memory.shape[1] :]

    def fold(self, times: Float[Tensor, "K E"], condition: Float[Tensor, "B C"]) -> Step:
        """The same network for walking a chain: keys and values of observations and times are computed once.

        Where the memory's tokens see each other it is another at every time, and nothing can be kept.
        """
        if not self.cross or self.condition.mixes:
            return super().fold(times, condition)
        observed, timely = self.condition.of_observations(condition), self.condition.of_time(times)
        layers = [block.cross for block in self._blocks()]
        known = [(layer.keys_values(timely), layer.keys_values(observed)) for layer in layers]

        def step(k: int, x: Tensor) -> Tensor:
            at = [tuple(_joined(t[k], o) for t, o in zip(time, obs, strict=True)) for time, obs in known]
            return self._decode(self._tokens(x), at)  # pyright: ignore[reportArgumentType]

        return step

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # pyright: ignore[reportReturnType]

    def _tokens(self, x: Float[Tensor, "B H A"]) -> Float[Tensor, "B H D"]:
        return self.drop(self.embed(x) + self.position)

    def _decode(self, x: Float[Tensor, "B N D"], seen: list[Seen] | list[None]) -> Float[Tensor, "B N A"]:
        mask, memory_mask = self.get_buffer("mask"), self.get_buffer("memory_mask")
        for block, memory in zip(self.blocks, seen, strict=True):
            x = block(x, mask, memory, memory_mask)
        return self.head(self.norm(x))


def masks(config: Transformer, horizon: int, observed: int) -> tuple[Tensor | None, Tensor | None]:
    """What tokens do not see, -inf, of their own sequence and of the memory; None where they see all."""
    if not config.causal:
        return None, None
    length = horizon + (0 if config.cross else 1 + observed)
    mask = torch.full((length, length), -math.inf).triu(1)
    if not (config.cross and config.first == "oldest"):
        return mask, None  # no observation is newer than the first action
    return mask, torch.full((horizon, 1 + observed), -math.inf).triu(2)  # the first column is the time


def _joined(time: Float[Tensor, "h 1 d"], obs: Float[Tensor, "B h T d"]) -> Float[Tensor, "B h S d"]:
    return torch.cat([time.expand(obs.shape[0], -1, -1, -1), obs], 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, (Memory, DenoisingTransformer)):
        nn.init.normal_(module.position, std=INIT_STD)
