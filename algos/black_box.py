"""Policies that are only played: an exported file, a server, any function (observation, noise) -> action.

What wraps a policy needs its scales too: they come from the file, or from the limits of the given specification.
Shapes: B batch, T observations, F features, N draws, H horizon, A action dim, R rows of noise: H, or fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..policies.normalizer import Normalizer
from ..policies.policy import ACTION, Context
from ..shapes import Float
from ..spec import ArraySpec, Convention, PolicySpec, split_pictures

Fn = Callable[[dict[str, np.ndarray], np.ndarray], Any]
"""observations name -> (B, T, ...) and noise (B, N, H, A), float32, pictures bytes, to physical actions (B, H, A)"""


@dataclass(frozen=True)
class BaseFile:
    """An exported file as a base: what an adapter that was trained on top of it keeps of it."""

    where: str
    """its path, or a server's address"""
    digest: str
    """SHA-256 of its content"""

    def open(self, spec: PolicySpec) -> Exported:
        """The base, for the environment of `spec`.

        Raises:
            UserError: if it cannot be played, or is another file now.
        """
        base = Exported(self.where)
        if base.digest != self.digest:
            raise UserError(
                f"{self.where} is not the base of this adapter (SHA-256 {base.digest[:12]}..., "
                f"not {self.digest[:12]}...): put that file back"
            )
        base.spec = replace(base.spec, env=spec.env, env_kwargs=spec.env_kwargs)
        return base


class Remote:
    """An actor made of a function; all that is known of it are shapes and scales.

    Args:
        fn: deterministic given its noise.
        spec: what it consumes and produces.
        noise_shape: (N, H, A) of its standard normal draws; draws beyond N = 1 make it unfit for steering.
        normalizer: scales of observations and actions; None: from the limits in `spec`, 1 where there are none.
    """

    config: BaseFile | None = None
    """what finds it again; None: nothing does"""

    def __init__(
        self, fn: Fn, spec: PolicySpec, noise_shape: tuple[int, ...], normalizer: Normalizer | None = None
    ) -> None:
        self.fn, self.spec = fn, spec
        self.noise_shape: tuple[int, int, int] = noise_shape  # type: ignore[assignment]  # `steerable` refuses others
        self.normalizer = normalizer if normalizer is not None else _from_limits(spec)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.pictures, self.flat_obs = split_pictures(spec.obs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Remote:
        return self  # an open file or connection: whoever copies an actor made of it copies what is trained

    @property
    def feature_dim(self) -> int:
        """F: length of the normalised, flat observation without pictures."""
        return self.spec.n_obs_steps * sum(int(np.prod(s.shape)) for s in self.flat_obs.values())

    def encode(self, obs: Mapping[str, Tensor]) -> Context:
        """Normalise and flatten physical observations but pictures, name -> (B, T, ...).

        Raises:
            UserError: for a missing observation.
        """
        for name in self.spec.obs:
            if name not in obs:
                raise UserError(f"observation '{name}' is missing: the policy expects {list(self.spec.obs)}")
        parts = [self.normalizer.normalize(name, obs[name].float().cpu()).flatten(1) for name in self.flat_obs]
        features = torch.cat(parts, 1)
        return Context(features, features)

    def noise(self, batch: int, generator: torch.Generator | None = None) -> Float[Tensor, "B N R A"]:
        """Standard normal noise for whole decisions."""
        return torch.randn((batch, *self.noise_shape), generator=generator)

    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B N R A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Physical action chunks.

        Raises:
            UserError: if the function returns another shape.
        """
        arrays = {name: obs[name].detach().cpu().numpy() for name in self.pictures}
        arrays |= {name: obs[name].detach().float().cpu().numpy() for name in self.flat_obs}
        batch = len(next(iter(arrays.values())))
        if noise is None:
            noise = self.noise(batch, generator)
        returned = self.fn(arrays, noise.detach().float().cpu().numpy())
        if not isinstance(returned, (np.ndarray, Tensor)):
            returned = np.asarray(returned, np.float32) if isinstance(returned, (list, tuple)) else returned
            if not isinstance(returned, np.ndarray):
                raise UserError(f"the base returned a {type(returned).__name__}, expected an array of actions")
        action = torch.as_tensor(returned).float()
        wanted = (batch, self.spec.horizon, self.spec.action.dim)
        if tuple(action.shape) != wanted:
            raise UserError(f"the base returned actions of shape {tuple(action.shape)}, expected {wanted}")
        return action


class Exported(Remote):
    """A file written by `noisepilot export`, played by its runtime: onnxruntime or numpy; or by `noisepilot serve`.

    Args:
        path: of the file, or the server's address, such as `ws://127.0.0.1:8000`.
        token: that the server wants.
        overlay: of the file, an adapter on top of it.

    Raises:
        UserError: if the file cannot be played, the server refuses, or the overlay is none of that file.
    """

    config: BaseFile

    def __init__(self, path: str | Path, *, token: str | None = None, overlay: str | Path | None = None) -> None:
        from ..deploy.runtime.remote import open_policy
        from ..deploy.runtime.spec import PolicyError

        try:
            player = open_policy(path, token=token, overlay=overlay)
        except PolicyError as error:
            raise UserError(str(error)) from None
        facts = player.spec
        spec = PolicySpec(
            {name: _array(array, array["shape"][1:]) for name, array in facts.observations.items()},
            _array(facts.action, facts.action["shape"][1:]),
            facts.horizon,
            facts.n_action_steps,
            facts.n_obs_steps,
            facts.control_hz,
            facts.env,
            facts.env_kwargs,
        )
        _, flat = split_pictures(spec.obs)
        normalizer = Normalizer({**flat, ACTION: spec.action})
        for name in (*flat, ACTION):
            array = facts.action if name == ACTION else facts.observations[name]
            _fit(normalizer, name, array["seen_low"], array["seen_high"])

        def play(obs: dict[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
            try:
                return player.act(obs, noise)
            except PolicyError as error:
                raise UserError(str(error)) from None

        super().__init__(play, spec, facts.noise_shape, normalizer)
        self.player, self.digest = player, player.digest
        self.config = BaseFile(str(path), player.digest)

    def hash(self) -> str:
        """Short fingerprint of the file."""
        return self.digest[:16]


def _array(facts: Mapping[str, Any], shape: Any) -> ArraySpec:
    low, high = (None if facts[key] is None else tuple(facts[key]) for key in ("low", "high"))
    said = Convention.from_json(facts.get("convention", {}))
    return ArraySpec(tuple(shape), tuple(facts["names"]), low, high, facts["unit"], said)


def _from_limits(spec: PolicySpec) -> Normalizer:
    arrays = {**split_pictures(spec.obs)[1], ACTION: spec.action}
    normalizer = Normalizer(arrays)
    for name, array in arrays.items():
        bounds = [np.broadcast_to(np.inf if b is None else b, array.shape) for b in (array.low, array.high)]
        finite = np.isfinite(bounds[0]) & np.isfinite(bounds[1])
        _fit(normalizer, name, np.where(finite, bounds[0], -1.0), np.where(finite, bounds[1], 1.0))
    return normalizer


def _fit(normalizer: Normalizer, name: str, low: Any, high: Any) -> None:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    normalizer.set(name, (low + high) / 2, (high - low) / 2)
