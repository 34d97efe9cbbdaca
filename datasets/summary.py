"""What a set holds, in numbers: counts, returns, a line per key. A zarr folder of ours is read in blocks.

T steps, E episodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .convert import blocks, checksum
from .episodes import sums
from .readers import load, open_source
from .zarr_layout import ZarrLayout, damage

ATTRS = ("env", "source", "licence", "fps", "seed", "left_out")


def summarise(path: str | Path) -> dict[str, Any]:
    """Provenance, counts, mean return, success rate, hash, and `arrays`: key -> shape, type, min, mean, std, max.

    Mean and std are those of the elements, averaged over elements.

    Raises:
        UserError: as `load`, but for values that are not finite.
    """
    source = open_source(path)
    if isinstance(source, ZarrLayout) and len(source):
        with damage(source.path):
            return _summary(source.attrs, source.ends, source.data, checksum(source.path))
    whole = load(path, strict=False)
    return _summary(whole.attrs, whole.ends, whole.data, whole.hash())


def _summary(attrs: Mapping[str, Any], ends: np.ndarray, data: Mapping[str, Any], digest: str) -> dict[str, Any]:
    lengths, steps = np.diff(ends, prepend=0), int(ends[-1])
    reward, success = (
        np.asarray(data[key][:steps]) if key in data else None for key in ("next.reward", "next.success")
    )
    return {
        **{name: attrs.get(name) for name in ATTRS},
        "episodes": len(ends),
        "steps": steps,
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "mean_return": None if reward is None else float(sums(reward, ends).mean()),
        "success_rate": None if success is None else float((sums(success > 0, ends) > 0).mean()),
        "hash": digest,
        "arrays": {key: {**_facts(data[key]), **moments(blocks(data[key], steps))} for key in sorted(data)},
    }


def _facts(array: Any) -> dict[str, str]:
    return {"shape": "x".join(map(str, array.shape[1:])) or "1", "type": str(array.dtype)}


def moments(parts: Iterable[np.ndarray]) -> dict[str, float]:
    """Least and largest number, and mean and standard deviation of each element, averaged; parts (n, ...)."""
    count, low, high = 0, np.inf, -np.inf
    mean = squares = np.zeros(())
    for part in parts:
        value = part.astype(np.float64)
        own, ours = value.mean(0), len(value)
        # Two parts' squared deviations from their common mean (Chan et al. 1979).
        shift, total = own - mean, count + ours
        squares = squares + ((value - own) ** 2).sum(0) + shift**2 * (count * ours / total)
        mean, count = mean + shift * (ours / total), total
        low, high = np.minimum(low, value.min()), np.maximum(high, value.max())  # NaN stays
    found = {"min": low, "mean": mean.mean(), "std": np.sqrt(squares / count).mean(), "max": high}
    return {name: float(value) for name, value in found.items()}
