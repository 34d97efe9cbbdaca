"""Do the actions lie beside the observations they were taken on? Hints from the data alone.

An action moves the observation: given o_t, the change o_{t+1} - o_t is explained by a_t, and worse by the
action one row away. Where a neighbour's action explains it far better, the rows are shifted. Linear least
squares on a sample of rows; slow or smooth motions leave it undecided, and then nothing is said.
"""

from __future__ import annotations

import numpy as np

from .episodes import Episodes

SAMPLE = 10_000
"""rows that take part"""
LEAST_GAIN = 0.05
"""explained variance, beyond what the observation explains alone, below which nothing is concluded"""
MARGIN = 2.0
"""how many times better a shifted action must explain the change"""
MOST_EPISODES = 0.9
"""share of episodes whose last action must look filled in"""


def misaligned(episodes: Episodes) -> list[str]:
    """One line per hint that actions and observations do not lie side by side."""
    return [hint for hint in (_shifted(episodes), _filled_in(episodes)) if hint]


def _shifted(episodes: Episodes) -> str:
    rows = _inner_rows(episodes)
    obs = [episodes.data[key] for key in episodes.obs_keys if episodes.data[key].ndim == 2]
    if not obs or len(rows) < 200:
        return ""
    state = np.concatenate(obs, 1)
    now = state[rows].astype(np.float64)
    change = state[rows + 1] - now
    action = episodes.data["action"].astype(np.float64)
    if not all(np.isfinite(value).all() for value in (now, change, action)):
        return ""
    alone = _explained(now, change)
    gain = {lag: _explained(np.hstack([now, action[rows + lag]]), change) - alone for lag in (-1, 0, 1)}
    best = max((-1, 1), key=lambda lag: gain[lag])
    if gain[best] < max(LEAST_GAIN, MARGIN * gain[0]):
        return ""
    where = "before" if best < 0 else "after"
    return f"the action one row {where} explains each observation's change better: shift the actions by one row"


def _filled_in(episodes: Episodes) -> str:
    last = episodes.ends[episodes.lengths >= 3] - 1
    if len(last) < 5:
        return ""
    action = episodes.data["action"]
    for what, looks in (
        ("is zero", lambda rows: (action[rows] == 0).all(1)),
        ("repeats the one before", lambda rows: (action[rows] == action[rows - 1]).all(1)),
    ):
        share = looks(last).mean()
        if share >= MOST_EPISODES and looks(last - 1).mean() < share / 2:
            return f"the last action of {100 * share:.0f} % of the episodes {what}: if filled in, drop the step"
    return ""


def _inner_rows(episodes: Episodes) -> np.ndarray:
    """Rows with a neighbour on both sides in the same episode, thinned to a sample."""
    inner = np.ones(episodes.num_steps, bool)
    inner[episodes.ends[episodes.lengths > 0] - 1] = False
    inner[episodes.starts[episodes.lengths > 0]] = False
    rows = np.flatnonzero(inner)
    return rows[:: max(1, len(rows) // SAMPLE)]


def _explained(inputs: np.ndarray, targets: np.ndarray) -> float:
    """Share of the targets' variance that a linear fit explains, averaged over the columns that vary."""
    scale = inputs.std(0)
    inputs = (inputs - inputs.mean(0))[:, scale > 0] / scale[scale > 0]
    targets = (targets - targets.mean(0))[:, targets.std(0) > 0]
    if not inputs.size or not targets.size:
        return 0.0
    weights = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return float((1 - (targets - inputs @ weights).var(0) / targets.var(0)).mean())
