"""Rewards that know success alone, under the same names in every suite.

| `reward_type` | without success | with success |
|---|---|---|
| `success` | 0 | 1 |
| `penalty` | -1 | 0 |

`success` counts successful steps: end the episode there (`terminate_on_success`) and the return is 1 or 0.
`penalty` makes the return minus the time it took, which leaves no reward to wait for.
"""

from __future__ import annotations

import numpy as np

SPARSE = {"success": (0.0, 1.0), "penalty": (-1.0, 0.0)}
"""`reward_type` -> reward without and with success"""


def sparse_reward(reward_type: str, success: np.ndarray) -> np.ndarray:
    """Reward (...) of success (...) bool; `reward_type` is a key of `SPARSE`."""
    without, reward = SPARSE[reward_type]
    return np.where(success, reward, without)
