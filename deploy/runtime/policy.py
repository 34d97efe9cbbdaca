"""An exported policy: observations in, action chunks out. Shapes: B batch, T observations, D elements, H horizon, A."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Union

import numpy as np

from .chain import read_chain
from .session import read_session
from .spec import PolicyError, read_spec

Array = np.ndarray
Run = Callable[[Dict[str, Array]], Array]


class Policy:
    """Deterministic given its noise; physical units on both sides.

    `run` maps `observation.<name>` (B, T, D) and `noise` (B, N, H, A), float32, to actions (B, H, A).
    """

    def __init__(self, run: Run, metadata: Dict[str, Any], name: str = "policy") -> None:
        self.metadata = metadata
        self.spec = read_spec(metadata, name)
        self._run = run
        self._generator = np.random.default_rng()

    @classmethod
    def load(cls, path: Union[str, Path]) -> Policy:
        """Open a `.onnx` or `.npz` file written by `noisepilot export`.

        Raises:
            PolicyError: if it is missing, corrupt, foreign or newer than this runtime.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise PolicyError(f"cannot read {path}: {error.strerror}") from None
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "policy") -> Policy:
        """Like `load`, from the content of a file that errors call `name`."""
        read = read_chain if content[:2] == b"PK" else read_session  # npz files are zip archives
        run, text = read(content, name)
        try:
            metadata = json.loads(text)
        except ValueError:
            raise PolicyError(f"{name} has metadata that is not JSON: export it again") from None
        if not isinstance(metadata, dict):
            raise PolicyError(f"{name} was not written by `noisepilot export`")
        return cls(run, metadata, name)

    def act(
        self, obs: Mapping[str, Any], noise: Any = None, *, generator: Union[np.random.Generator, None] = None
    ) -> Array:
        """Action chunk (H, A) for one observation, name -> (T, D), or (B, H, A) for a batch, name -> (B, T, D).

        Args:
            obs: physical units; names the policy does not know are ignored.
            noise: (N, H, A), or (B, N, H, A) for a batch; drawn if None.
            generator: what the noise is drawn from; None: a fresh stream per loaded policy.

        Raises:
            PolicyError: for an observation that is missing, of another shape or not finite, or a wrong noise shape.
        """
        feeds = {"observation." + name: self._observation(name, obs) for name in self.spec.observations}
        leads = {array.shape[:-2] for array in feeds.values()}
        if len(leads) != 1:
            raise PolicyError(f"observations differ in batch size: { {k: v.shape for k, v in feeds.items()} }")
        lead = leads.pop()
        shape = lead + self.spec.noise_shape
        if noise is None:
            noise = (generator or self._generator).standard_normal(shape, np.float32)
        noise = np.asarray(noise, np.float32)
        if noise.shape != shape:
            raise PolicyError(f"noise has shape {noise.shape}, expected {shape}")
        if lead:
            return self._run({**feeds, "noise": noise})
        return self._run({key: value[None] for key, value in {**feeds, "noise": noise}.items()})[0]

    def _observation(self, name: str, obs: Mapping[str, Any]) -> Array:
        if name not in obs:
            raise PolicyError(f"observation '{name}' is missing: the policy expects {list(self.spec.observations)}")
        value = np.asarray(obs[name], np.float32)
        expected = self.spec.observations[name]["shape"]
        if value.ndim not in (2, 3) or value.shape[-2:] != expected:
            raise PolicyError(f"observation '{name}' has shape {value.shape}, expected {expected} or (B, *{expected})")
        if not np.isfinite(value).all():
            element = int(np.argwhere(~np.isfinite(value))[0][-1])
            raise PolicyError(f"observation '{name}' is not finite: element {element} is {value[..., element].tolist()}")
        return value
