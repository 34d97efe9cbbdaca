"""An exported policy: observations in, action chunks out.

Shapes: B batch, T observations, D elements, N draws, H horizon, A action dim, P most committed actions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .backends import read
from .spec import PolicyError, read_spec
from .verify import Verification, verify

Array = np.ndarray
Run = Callable[[dict[str, Array]], Array]


class Policy:
    """Deterministic given its noise; physical units on both sides.

    `run` maps `observation.<name>` (B, T, D), bytes (B, T, H, W, C) for pictures, and `noise` (B, N, H, A) to actions
    (B, H, A); what is no picture is float32. With `spec.max_prefix` it also takes `prefix_actions` (B, P, A) and
    `prefix_len` (B,), int64. `digest` is the SHA-256 of the file it came from, `backend` what plays it, with its
    version.
    """

    corrects = False
    """whether the chunk's actions change as they are played: then each passes `correct` before it is sent"""

    def __init__(
        self, run: Run, metadata: dict[str, Any], name: str = "policy", digest: str = "", backend: str = ""
    ) -> None:
        self.metadata = metadata
        self.spec = read_spec(metadata, name)
        self.run = run
        self.digest = digest
        self.backend = backend
        self._generator = np.random.default_rng()

    @classmethod
    def load(cls, path: str | Path, backend: str | None = None, *, overlay: str | Path | None = None) -> Policy:
        """Open a `.onnx` or `.npz` file written by `noisepilot export`.

        Args:
            path: of the file.
            backend: what plays it: `onnxruntime`, `openvino` or `openvino-bfloat16` for `.onnx`, `numpy` for `.npz`;
                None: the first of these.
            overlay: an adapter that was trained on top of it, a `.overlay` file; without it the file acts alone.

        Raises:
            PolicyError: if it is missing, corrupt, foreign or newer than this runtime, the backend is missing, or the
                overlay is, or belongs to another file.
        """
        suffix = Path(path).suffix
        if suffix == ".c":
            raise PolicyError(f"{path} is C source: compile it into your program, or export to .onnx or .npz")
        if suffix == ".overlay":
            raise PolicyError(f"{path} is an overlay: give the file that it was trained on, and this as its overlay")
        if suffix == ".pt2":
            raise PolicyError(f"{path} is machine code, which neither runtime nor server run: `noisepilot run --trust`")
        return cls.from_bytes(read_bytes(path), str(path), backend).under(overlay)

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "policy", backend: str | None = None) -> Policy:
        """Like `load`, from the content of a file that errors call `name`."""
        run, text, player = read(content, name, backend)
        try:
            metadata = json.loads(text)
        except ValueError:
            raise PolicyError(f"{name} has metadata that is not JSON: export it again") from None
        if not isinstance(metadata, dict):
            raise PolicyError(f"{name} was not written by `noisepilot export`")
        return Policy(run, metadata, name, hashlib.sha256(content).hexdigest(), player)

    def under(self, overlay: str | Path | None) -> Policy:
        """This policy with an adapter on top, from a `.overlay` file; itself without one.

        Raises:
            PolicyError: as `load`.
        """
        if overlay is None:
            return self
        from .overlay import Overlay

        return Overlay.load(overlay).on(self)

    def correct(self, obs: Mapping[str, Any], action: Any) -> Array:
        """What to send instead of an action (A,) of the chunk, given the newest observations as `act` takes them."""
        return action

    def act(
        self,
        obs: Mapping[str, Any],
        noise: Any = None,
        *,
        generator: np.random.Generator | None = None,
        prefix: Any = None,
    ) -> Array:
        """Action chunk (H, A) for one observation, name -> (T, ...); (B, H, A) for a batch, name -> (B, T, ...).

        Args:
            obs: physical units, pictures as uint8; names the policy does not know are ignored.
            noise: (N, H, A), or (B, N, H, A) for a batch; drawn if None.
            generator: what the noise is drawn from; None: a fresh stream per loaded policy.
            prefix: (n, A), or (B, n, A) for a batch, n <= `spec.max_prefix`: actions that are committed already, from
                the moment of the observation on; the chunk begins with them. None: it is free.

        Raises:
            PolicyError: for an observation that is missing, misshapen or not finite, or misshapen noise or prefix.
        """
        feeds, batched = self.feeds(obs, noise, generator, prefix)
        return self.run(feeds) if batched else self.run(feeds)[0]

    def verify(self) -> Verification:
        """Make the decisions again that the file keeps of torch, and compare.

        Raises:
            PolicyError: if the file keeps none.
        """
        return verify(self)

    def feeds(
        self,
        obs: Mapping[str, Any],
        noise: Any = None,
        generator: np.random.Generator | None = None,
        prefix: Any = None,
    ) -> tuple[dict[str, Array], bool]:
        """What `run` takes, checked, from what `act` takes; and whether that was a batch. Raises as `act` does."""
        feeds = {"observation." + name: self.observation(name, obs) for name in self.spec.observations}
        shapes = self.spec.observations
        leads = {feeds["observation." + name].shape[: -len(shapes[name]["shape"])] for name in shapes}
        if len(leads) != 1:
            raise PolicyError(f"observations differ in batch size: {[a.shape for a in feeds.values()]}")
        lead = leads.pop()
        feeds["noise"] = self._noise(lead, noise, generator)
        feeds.update(self._prefix(lead, prefix))
        return (feeds, True) if lead else ({name: np.asarray(array)[None] for name, array in feeds.items()}, False)

    def _noise(self, lead: tuple[int, ...], noise: Any, generator: np.random.Generator | None) -> Array:
        shape = lead + self.spec.noise_shape
        if noise is None:
            return (generator or self._generator).standard_normal(shape, np.float32)
        return _checked("noise", noise, shape)

    def _prefix(self, lead: tuple[int, ...], prefix: Any) -> dict[str, Array]:
        most, dim = self.spec.max_prefix, self.spec.action["shape"][1]
        if not most:
            if prefix is not None:
                raise PolicyError("this policy knows no prefix: train it with --policy.max-prefix, or leave prefix out")
            return {}
        actions = np.zeros((*lead, 0, dim)) if prefix is None else _numbers("prefix", prefix, (most, dim))
        count = actions.shape[-2] if actions.ndim > 1 else 0
        if count > most:
            raise PolicyError(f"prefix has {count} actions, the policy takes at most {most}: replan sooner")
        held = np.zeros((*lead, most, dim), np.float32)
        held[..., :count, :] = _checked("prefix", actions, (*lead, count, dim))
        return {"prefix_actions": held, "prefix_len": np.full(lead, count, np.int64)}

    def observation(self, name: str, obs: Mapping[str, Any]) -> Array:
        """One observation as `run` takes it, but for the batch axis, which it has only if it was given one."""
        if name not in obs:
            known = list(self.spec.observations)
            raise PolicyError(f"observation '{name}' is missing: the policy expects {known}")
        known = self.spec.observations[name]
        what, shape = f"observation '{name}'", known["shape"]
        if known.get("dtype") != "uint8":
            return _checked(what, obs[name], shape, batch=True)
        picture = np.asarray(obs[name])
        if picture.dtype != np.uint8:
            raise PolicyError(f"{what} is {picture.dtype}: pictures are bytes (uint8) of shape {shape}, channels last")
        return _shaped(what, picture, shape, batch=True)


def read_bytes(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        PolicyError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise PolicyError(f"{path} is a folder: give a file that `noisepilot export` wrote of it") from None
    except OSError as error:
        raise PolicyError(f"cannot read {path}: {error.strerror}") from None


def _checked(what: str, value: Any, shape: tuple[int, ...], *, batch: bool = False) -> Array:
    """`value` as float32 if it has this shape (or, with `batch`, one more leading axis) and is finite."""
    array = _shaped(what, _numbers(what, value, shape), shape, batch=batch)
    if not np.isfinite(array).all():
        at = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise PolicyError(f"{what} is not finite: {array[at]} at {at} of shape {array.shape}")
    return array


def _numbers(what: str, value: Any, shape: tuple[int, ...]) -> Array:
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise PolicyError(f"{what} is not an array of numbers: expected shape {shape}") from None


def _shaped(what: str, array: Array, shape: tuple[int, ...], *, batch: bool) -> Array:
    if array.shape != shape and not (batch and array.ndim == len(shape) + 1 and array.shape[1:] == shape):
        alternative = f" or (B, {', '.join(map(str, shape))})" if batch else ""
        raise PolicyError(f"{what} has shape {array.shape}, expected {shape}{alternative}")
    return array
