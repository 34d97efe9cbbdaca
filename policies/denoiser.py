"""What a policy needs of its network, whatever it is made of.

Shapes: B batch, T observations, H horizon, A action dim, F features of the observation, C condition, E time
embedding, K steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..shapes import Float
from .sampler import Step
from .vision.encoder import Encoder


@dataclass(frozen=True)
class Sizes:
    """What a network is built for."""

    obs: tuple[int, ...]
    """length of each observation at one time; features hold one after the other, each with all its times"""
    n_obs_steps: int
    """T"""
    horizon: int
    """H"""
    action_dim: int
    """A"""
    whole: int = 0
    """length of what features begin with that belongs to all times together, as an action prefix and pictures stacked
    over time do"""

    @property
    def features(self) -> int:
        """F: length of the flat observation."""
        return self.whole + self.n_obs_steps * sum(self.obs)

    def require_times(self) -> None:
        """Refuse features that cannot be told apart by time.

        Raises:
            UserError: if some belong to all times together.
        """
        if self.whole:
            raise UserError(
                "this network takes observations time by time, but an action prefix, and stacked pictures, belong to "
                "all times: set max_prefix to 0 and n_obs_steps to 1, or take another network"
            )

    def by_time(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B T D"]:
        """What each time contributes to flat features, D numbers."""
        times = self.n_obs_steps
        parts = features.split([times * length for length in self.obs], 1)
        return torch.cat([part.unflatten(1, (times, -1)) for part in parts], 2)


class Denoiser(nn.Module):
    """A network that sees a noisy chunk, a time and an observation, in three parts that are called as often as needed.

    Where observations hold pictures, an encoder makes features of them before; it is part of the network, so that it is
    trained, averaged and kept with it.

    A subclass has `time_embedding`, a module from times (B,), and step sizes where it sees them, to (B, E), and
    `condition`, a module from features (B, F) to the condition (B, C).
    """

    time_embedding: nn.Module
    condition: nn.Module
    time_dim: int
    """E"""
    condition_dim: int
    """C"""
    drops: bool = False
    """behaviour cloning drops some of its activations; such a network is built in evaluation mode"""

    def __init__(self) -> None:
        super().__init__()
        self.encoder: Encoder | None = None

    def forward(
        self, x: Float[Tensor, "B H A"], time: Float[Tensor, "B E"], condition: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """One call per row; `time` comes from `time_embedding`, `condition` from `condition`."""
        raise NotImplementedError

    def fold(self, times: Float[Tensor, "K E"], condition: Float[Tensor, "B C"]) -> Step:
        """The same network for walking a chain; subclasses compute what does not depend on the chunk once."""
        return lambda k, x: self(x, times[k].expand(x.shape[0], -1), condition)


@contextmanager
def dropping(network: Denoiser, generator: torch.Generator) -> Iterator[None]:
    """Inside the block a network that `drops` does so, by draws that follow from the generator; outside it never does.

    Policies act, are scored and tuned by RL without: a likelihood needs one network, not one per call.
    """
    if not network.drops:
        yield
        return
    device = generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network.train()
        try:
            yield
        finally:
            network.eval()
