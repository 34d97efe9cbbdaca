"""Seeds of episodes: evaluation draws from [0, 2**30), training from [2**30, 2**31), so they can never meet."""

from __future__ import annotations

import numpy as np

from ..errors import UserError

FIRST_TRAIN_SEED = 2**30


def train_seeds(run_seed: int, slot: int, episode: int) -> int:
    """The seed of a slot's `episode`-th training episode; the same numbers always give the same seed."""
    if min(run_seed, slot, episode) < 0:
        raise UserError(f"seed, slot and episode must not be negative, got {run_seed}, {slot}, {episode}")
    (drawn,) = np.random.SeedSequence((run_seed, slot, episode)).generate_state(1)
    return FIRST_TRAIN_SEED + int(drawn) % FIRST_TRAIN_SEED


def eval_seeds(n: int) -> range:
    """The seeds of `n` evaluation episodes."""
    if not 0 <= n <= FIRST_TRAIN_SEED:
        raise UserError(f"between 0 and {FIRST_TRAIN_SEED} evaluation episodes are possible, not {n}")
    return range(n)
