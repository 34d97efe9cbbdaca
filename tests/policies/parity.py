"""Official weights under our names, and fixture access."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from noisepilot.policies.foreign.dppo_names import rename


class Fixture:
    """One file of official numbers."""

    def __init__(self, folder: Path, name: str) -> None:
        with np.load(folder / "parity" / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = dict(file)

    def set(self, key: str) -> Any:
        value = self.arrays[f"set.{key}"]
        return tuple(value.tolist()) if value.ndim else value.item()

    def tensor(self, key: str, dtype=torch.float64) -> torch.Tensor:
        value = torch.from_numpy(np.asarray(self.arrays[key]))
        return value.to(dtype) if value.is_floating_point() else value

    def weights(self, part: str, prefix: str = "w", dtype=torch.float64) -> dict[str, torch.Tensor]:
        start = f"{prefix}.{part}."
        names = [k for k in self.arrays if k.startswith(start) and ".logvar_m" not in k]  # the noise's bounds
        return {rename(k.removeprefix(start)): self.tensor(k, dtype) for k in names}
