"""Pictures at another size: a new pixel is the mean over the area of the old picture that it covers."""

from __future__ import annotations

import numpy as np

Size = tuple[int, int]
"""(height, width)"""


def resized(pictures: np.ndarray, size: Size) -> np.ndarray:
    """Pictures (L, H, W, C) uint8 at another (height, width)."""
    height, width, channels = pictures.shape[1:]
    down, across = shares(height, size[0]), shares(width, size[1])
    out = np.empty((len(pictures), *size, channels), np.uint8)
    for old, new in zip(pictures, out, strict=True):  # one at a time: as floats they are four times as large
        rows = (down @ old.reshape(height, -1).astype(np.float32)).reshape(size[0], width, channels)
        new[:] = np.rint(across @ rows)
    return out


def shares(old: int, new: int) -> np.ndarray:
    """(new, old): how much of each new pixel's span belongs to each old one, in one direction."""
    edges = np.linspace(0, old, new + 1)
    pixel = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (overlap.clip(0) * (new / old)).astype(np.float32)
