"""Seeds of episodes, and generators as arrays.

Evaluation draws its seeds from [0, 2**30), training from [2**30, 2**31): they never meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError

FIRST_TRAIN_SEED = 2**30
NOISE_STREAM = 0x6E6F6973
"""keeps a policy's noise independent of the environment's own draws from the same seed"""
WORD = 2**64


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


def noise_generator(seed: int) -> np.random.Generator:
    """The source of a policy's noise in an episode, fixed by the episode's seed."""
    return np.random.Generator(np.random.PCG64([NOISE_STREAM, seed]))


def packed(rng: np.random.Generator) -> list[int]:
    """A PCG64 generator's state as six words of 64 bits."""
    state: Any = rng.bit_generator.state
    inner = state["state"]
    words = [*divmod(inner["state"], WORD), *divmod(inner["inc"], WORD)]
    return [*words, state["has_uint32"], state["uinteger"]]


def unpacked(words: np.ndarray) -> np.random.Generator:
    """The generator of six words."""
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high * WORD + state_low, "inc": inc_high * WORD + inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return rng
