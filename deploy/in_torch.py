"""A policy in torch behind the runtime's interface, for loops that measure what no file can do.

Shapes: T observations, N draws, H horizon, A action dim, m remaining actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..policies.action_prefix import ACTIONS, LENGTH
from ..policies.guidance import guidable, guided_chunk
from ..policies.normalizer import ACTION
from ..policies.policy import Policy
from .cameras import Cameras
from .export import describe
from .graph import Exportable
from .runtime.policy import Array
from .runtime.policy import Policy as RuntimePolicy
from .runtime.spec import PolicyError


class InTorch(RuntimePolicy):
    """`spec` and `act` as of an exported file."""

    def __init__(self, policy: Exportable, name: str = "policy") -> None:
        self.policy = policy.eval()
        super().__init__(self._run, describe(policy, Cameras(policy.spec)), name)

    def _run(self, feeds: dict[str, Array]) -> Array:
        obs = {name: torch.from_numpy(feeds["observation." + name]) for name in self.spec.observations}
        obs |= {name: torch.from_numpy(feeds[name]) for name in (ACTIONS, LENGTH) if name in feeds}
        return self.policy.act(obs, torch.from_numpy(feeds["noise"])).float().numpy()


class Guided(InTorch):
    """A flow whose chain is bent towards the chunk that is being played, see `policies/guidance.py`."""

    guided = True
    """`act` takes `frozen`"""

    def __init__(self, policy: Policy, name: str = "policy") -> None:
        super().__init__(guidable(policy), name)
        self.flow = policy

    def act(
        self,
        obs: Mapping[str, Any],
        noise: Any = None,
        *,
        generator: np.random.Generator | None = None,
        prefix: Any = None,
        frozen: int = 0,
    ) -> Array:
        """Action chunk (H, A) for one observation, name -> (T, ...); (B, H, A) for a batch, name -> (B, T, ...).

        Args:
            obs: as of an exported policy.
            noise: the same.
            generator: the same.
            prefix: (m, A), or (B, m, A) for a batch: what remains of the chunk before, from the moment of the
                observation on; None: nothing does.
            frozen: how many of them will have been played when this chunk arrives, at most m.

        Raises:
            PolicyError: as of an exported policy.
        """
        if prefix is None or not np.size(prefix):
            return super().act(obs, noise, generator=generator)
        feeds, batched = self.feeds(obs, noise, generator)
        policy, count = self.flow, len(feeds["noise"])
        remaining = torch.as_tensor(self._remaining(prefix, count)).to(policy.device)
        remaining = policy.normalizer.normalize(ACTION, remaining.expand(count, *remaining.shape[-2:]))
        seen = {name: torch.from_numpy(feeds["observation." + name]) for name in self.spec.observations}
        with torch.no_grad():
            context = policy.encode({name: value.to(policy.device) for name, value in seen.items()})
            draws = torch.from_numpy(feeds["noise"]).to(policy.device, policy.dtype)
            chunk = guided_chunk(policy, context, draws, remaining.to(policy.dtype), min(frozen, remaining.shape[1]))
            action = policy.normalizer.denormalize(ACTION, chunk).float().cpu().numpy()
        return action if batched else action[0]

    def _remaining(self, prefix: Any, count: int) -> Array:
        """(m, A) or (B, m, A), checked."""
        horizon, dim = self.spec.action["shape"]
        found = np.asarray(prefix, np.float32)
        fits = found.ndim == 2 or (found.ndim == 3 and len(found) == count)
        if not fits or found.shape[-2] > horizon or found.shape[-1] != dim or not np.isfinite(found).all():
            raise PolicyError(
                f"prefix has shape {found.shape}, expected (m, {dim}), m at most {horizon}, of finite numbers"
            )
        return found
