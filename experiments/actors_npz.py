"""Actors stored as plain arrays: small multilayer perceptrons of other libraries, read without pickle.

`h = act(w_i h + b_i)` for w0, w1, ..., then `w_out h + b_out` (or the last w_i). Three families:
squash (SAC, TQC): tanh of a Gaussian whose log std is `w_logstd h + b_logstd`, clipped to [-20, 2];
gauss (PPO, TRPO): observation normalised by `obs_mean` and `obs_var` (or `obs_std`), constant `log_std`;
DAPG: observation and action shifted and scaled by `in_*` and `out_*`, constant `log_std`.
An archive of many snapshots needs its name after a colon: `policies.npz:iter0000500`.

Shapes: N slots, O observation dim, A action dim.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError, unknown
from ..spec import EnvSpec

_ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}


@dataclass(frozen=True)
class ArrayActor:
    """A controller: one action per observation, drawn with `noise` times the actor's own deviation."""

    arrays: Mapping[str, np.ndarray]
    source: str
    noise: float = 1.0
    """0: the mean action; 1: as the actor was trained to act"""
    n_obs_steps: int = 1

    def act(self, obs: Mapping[str, np.ndarray], rng: Sequence[np.random.Generator]) -> np.ndarray:
        """Observations name -> (N, 1, ...) to actions (N, 1, A), not clipped."""
        hidden = _normalise(self.arrays, obs["state"][:, -1].astype(np.float64))
        layers = _layers(self.arrays)
        activation = _ACTIVATIONS[str(self.arrays.get("act", "tanh"))]
        for weight, bias in layers[:-1]:
            hidden = activation(hidden @ weight.T + bias)
        weight, bias = layers[-1]
        mean = hidden @ weight.T + bias
        mean = mean * self.arrays.get("out_scale", 1.0) + self.arrays.get("out_shift", 0.0)
        draw = np.stack([generator.standard_normal(mean.shape[1]) for generator in rng])
        action = mean + self.noise * np.exp(_log_std(self.arrays, hidden)) * draw
        return (np.tanh(action) if _squashed(self.arrays) else action)[:, None]

    def check_env(self, spec: EnvSpec) -> None:
        """Refuse an environment of other shapes."""
        layers = _layers(self.arrays)
        needs, gives = layers[0][0].shape[1], layers[-1][0].shape[0]
        state = spec.obs.get("state")
        if state is None or state.shape != (needs,) or spec.action.shape != (gives,):
            has = {name: array.shape for name, array in spec.obs.items()}
            raise UserError(
                f"{self.source} maps a state of {needs} to {gives} actions, but {spec.id} has observations "
                f"{has} and actions {spec.action.shape}: choose the environment it was trained on"
            )


def load_actor_npz(path: str, noise: float = 1.0) -> ArrayActor:
    """Read `file.npz` or `file.npz:snapshot`.

    Raises:
        UserError: where the file is missing, damaged, no actor, or holds snapshots and none is named.
    """
    file, _, snapshot = path.partition(".npz:")
    file = Path(file if not snapshot else file + ".npz")
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise UserError(f"no actor at {file}: check the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a readable .npz of plain arrays: {error}") from error
    arrays = _choose(arrays, file, snapshot)
    if "w0" not in arrays or "b0" not in arrays:
        raise UserError(f"{file} is not an actor: it has no layer 'w0', 'b0'")
    if bool(arrays.get("time_feature", False)):
        raise UserError(f"{file} expects the time as part of its observation, which is not supported")
    if str(arrays.get("act", "tanh")) not in _ACTIVATIONS:
        raise unknown("activation", str(arrays["act"]), _ACTIVATIONS)
    return ArrayActor(arrays, Path(path).name, noise)


def _choose(arrays: dict[str, np.ndarray], file: Path, snapshot: str) -> dict[str, np.ndarray]:
    names = sorted({key.split("/")[0] for key in arrays if "/" in key})
    if not names:
        return arrays
    if not snapshot:
        raise UserError(f"{file} holds {len(names)} snapshots: name one, as in {file.name}:{names[-1]}")
    if snapshot not in names:
        raise unknown("snapshot", snapshot, names)
    return {key.removeprefix(f"{snapshot}/"): arrays[key] for key in arrays if key.startswith(f"{snapshot}/")}


def _layers(arrays: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    count = sum(f"w{i}" in arrays for i in range(len(arrays)))
    layers = [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(count)]
    return [*layers, (arrays["w_out"], arrays["b_out"])] if "w_out" in arrays else layers


def _normalise(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if "obs_var" in arrays:
        scaled = (x - arrays["obs_mean"]) / np.sqrt(arrays["obs_var"] + arrays["obs_eps"])
        return np.clip(scaled, -arrays["obs_clip"], arrays["obs_clip"])
    if "obs_std" in arrays:
        return (x - arrays["obs_mean"]) / (arrays["obs_std"] + 1e-6)
    if "in_shift" in arrays:
        return (x - arrays["in_shift"]) / (arrays["in_scale"] + 1e-8)
    return x


def _squashed(arrays: Mapping[str, np.ndarray]) -> bool:
    return "w_logstd" in arrays


def _log_std(arrays: Mapping[str, np.ndarray], hidden: np.ndarray) -> np.ndarray:
    if _squashed(arrays):
        return np.clip(hidden @ arrays["w_logstd"].T + arrays["b_logstd"], -20.0, 2.0)
    return arrays["log_std"].astype(np.float64)
