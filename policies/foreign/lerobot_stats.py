"""The normalisation of a LeRobot policy: its modes and statistics, wherever its version keeps them.

Until 0.3 statistics are buffers of the policy (`normalize_inputs.buffer_observation_state.min`); later they lie beside
it, in the file that the step `normalizer_processor` of `policy_preprocessor.json` names (`observation.state.min`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import UserError

RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
"""mode -> statistics that become -1 and 1"""
EPS = 1e-8
"""LeRobot adds it to what it divides by"""
BUFFERS = ("normalize_inputs.buffer_", "unnormalize_outputs.buffer_", "normalize_targets.buffer_")
PIPELINES = ("policy_preprocessor.json", "policy_postprocessor.json")
NUMBERS_STAY = {"rename_observations_processor", "to_batch_processor", "device_processor"}
"""steps of a pipeline that leave numbers as they are"""
NORMALIZES = {"normalizer_processor", "unnormalizer_processor"}


@dataclass(frozen=True)
class Stats:
    """What a policy normalises by."""

    modes: Mapping[str, str]
    """type of a feature -> how"""
    values: Mapping[str, Mapping[str, np.ndarray]]
    """feature -> statistic"""

    def scale(self, key: str, kind: str, output: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Center and half width of what becomes -1 to 1; float64, of the feature's statistics' shape.

        Args:
            key: of the feature.
            kind: its type, STATE, ENV, VISUAL or ACTION.
            output: normalised numbers become physical, not the other way.

        Raises:
            UserError: for an unknown mode, or statistics that are missing or not finite.
        """
        mode, found = self.modes.get(kind, "IDENTITY"), self.values.get(key, {})
        if mode == "IDENTITY":
            return np.zeros(()), np.ones(())
        names = ("mean", "std") if mode == "MEAN_STD" else RANGES.get(mode)
        if names is None:
            raise UserError(f"normalises {kind} by {mode}: MEAN_STD, IDENTITY, {', '.join(RANGES)} are imported")
        if missing := [name for name in names if name not in found or not np.isfinite(found[name]).all()]:
            raise UserError(f"has no {' and '.join(missing)} of '{key}', which it normalises by {mode}: copy all files")
        low, high = (found[name].astype(np.float64) for name in names)
        if mode == "MEAN_STD":
            return low, high if output else high + EPS
        half = (high - low) / 2
        # What never changes: its one value is seen as -1, and comes back.
        constant = (half == 0) & (not output)
        return np.where(constant, low + 1, low + half), np.where(constant, 1.0, half)


def read_stats(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], keys: list[str]) -> Stats:
    """Modes and statistics of the features `keys`.

    Raises:
        UserError: for a pipeline that changes numbers in other ways, or files that cannot be read.
    """
    values: dict[str, dict[str, np.ndarray]] = {key: {} for key in keys}
    modes = dict(config.get("normalization_mapping") or {})
    for key in keys:
        for start in BUFFERS:
            start += key.replace(".", "_") + "."
            values[key] |= {k.removeprefix(start): v.numpy() for k, v in weights.items() if k.startswith(start)}
    for pipeline in (folder / name for name in PIPELINES if (folder / name).is_file()):
        for step in read_json(pipeline).get("steps", []):
            name = step.get("registry_name")
            renames = (step.get("config") or {}).get("rename_map")
            if name not in NORMALIZES | NUMBERS_STAY or renames:
                raise UserError(f"its {pipeline.name} has the step '{name}' {renames or ''}, which has no equal here")
            if name in NORMALIZES and step.get("state_file"):
                modes |= (step.get("config") or {}).get("norm_map") or {}
                for path, value in read_tensors(folder / step["state_file"]).items():
                    key, _, statistic = path.rpartition(".")
                    if key in values:
                        values[key][statistic] = value.numpy()
    return Stats(modes, values)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: for a file that is none.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy the whole folder again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: copy the whole folder again")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy the whole folder again") from None
