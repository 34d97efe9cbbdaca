"""Small sets of known content."""

import numpy as np

from noisepilot.datasets.episodes import Episodes


def make(lengths=(5, 1, 7), obs=3, action=2, seed=0, success=True):
    """Random episodes with a reward of 1 a step; the last one terminates, the others are cut."""
    rng = np.random.default_rng(seed)
    steps, ends = sum(lengths), np.cumsum(lengths)
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    truncated[ends[:-1] - 1] = True
    terminated[ends[-1] - 1] = True
    data = {
        "observation.state": rng.normal(size=(steps, obs)).astype(np.float32),
        "observation.goal": rng.normal(size=(steps, 2)).astype(np.float32),
        "action": rng.uniform(-1, 1, (steps, action)).astype(np.float32),
        "next.reward": np.ones(steps, np.float32),
        "next.terminated": terminated,
        "next.truncated": truncated,
    }
    if success:
        data["next.success"] = terminated.astype(np.float32)
    final = {
        key: rng.normal(size=(len(lengths), data[key].shape[1])).astype(np.float32)
        for key in ("observation.state", "observation.goal")
    }
    return Episodes(data, ends, {"env": "Toy-v0", "fps": 10.0, "source": "toy", "licence": "MIT"}, final)


def final_of(episodes, index):
    return {key: value[index] for key, value in episodes.final.items()}
