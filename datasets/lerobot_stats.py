"""Statistics as LeRobot keeps them, per episode and of the whole set: what its policies normalise with.

`min`, `max`, `mean`, `std`, `count` and the quantiles 1, 10, 50, 90 and 99 %, per element. Pictures are scaled to
[0, 1] and have one value per channel, of shape (3, 1, 1). The set's quantiles are the episodes' means, weighted by
their lengths, as LeRobot merges them; all else is exact, but that of pictures some frames stand for all.
"""

from __future__ import annotations

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FRAMES = 50
"""frames of an episode that are looked at"""
PIXELS = 150
"""pixels along a side that are looked at"""

Stats = dict[str, np.ndarray]


def of_array(value: np.ndarray) -> Stats:
    """Of one key's steps (L, ...); each statistic has the shape of a step, and at least one element."""
    value = value.reshape(len(value), *(value.shape[1:] or (1,))).astype(np.float64)
    quantiles = np.quantile(value, list(QUANTILES.values()), axis=0)
    return {
        "min": value.min(0),
        "max": value.max(0),
        "mean": value.mean(0),
        "std": value.std(0),
        "count": np.array([len(value)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def of_pictures(frames: np.ndarray) -> Stats:
    """Of one camera's frames (L, H, W, 3) uint8."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int))
    step = max(1, max(frames.shape[1:3]) // PIXELS)
    pixels = frames[chosen, ::step, ::step].reshape(-1, 3)
    stats = {name: value.reshape(3, 1, 1) / 255 for name, value in of_array(pixels).items() if name != "count"}
    return stats | {"count": np.array([len(chosen)])}


def merged(one: Stats | None, other: Stats) -> Stats:
    """Of two parts together; `one` may be absent."""
    if one is None:
        return other
    count = one["count"] + other["count"]
    share = other["count"] / count
    mean = one["mean"] + share * (other["mean"] - one["mean"])
    spread = sum(
        weight * (part["std"] ** 2 + (part["mean"] - mean) ** 2) for weight, part in ((1 - share, one), (share, other))
    )
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": mean,
        "std": np.sqrt(spread),
        "count": count,
        **{name: (1 - share) * one[name] + share * other[name] for name in QUANTILES},
    }
