"""One set from several of the same environment, such as the experience of a policy at many stages of learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UserError
from .episodes import Episodes


def first_steps(episodes: Episodes, steps: int) -> Episodes:
    """The first `steps` steps of a set; an episode that goes on beyond them is truncated there.

    Raises:
        UserError: where the set has fewer.
    """
    if not 0 < steps <= episodes.num_steps:
        name = episodes.attrs.get("source") or "the set"
        raise UserError(f"{steps} steps of {name} are wanted, but it has {episodes.num_steps}: ask for fewer")
    whole = int(np.searchsorted(episodes.ends, steps))  # episodes that end before `steps`, without the last one taken
    ends = np.append(episodes.ends[:whole], steps)
    data = {key: value[:steps] for key, value in episodes.data.items()}
    final = {key: value[: whole + 1] for key, value in episodes.final.items()}
    if steps < episodes.ends[whole]:
        if "next.truncated" in data:
            data["next.truncated"] = np.append(data["next.truncated"][:-1], True)
        final = {key: np.concatenate([value[:whole], episodes.data[key][steps][None]]) for key, value in final.items()}
    return replace(episodes, data=data, ends=ends, final=final)


def join(sets: Sequence[Episodes]) -> Episodes:
    """All episodes of several sets, in their order; the attribute `parts` says what came from where.

    Raises:
        UserError: for sets of different environments, kinds of reward or keys.
    """
    if not sets:
        raise UserError("nothing to mix: name at least one set")
    first = sets[0]
    for other in sets[1:]:
        _require_same("environment", first.attrs.get("env"), other.attrs.get("env"))
        _require_same("reward_type", reward_type(first), reward_type(other))
        _require_same("keys", sorted(first.data), sorted(other.data))
    ends = np.cumsum(np.concatenate([part.lengths for part in sets]))
    data = {key: np.concatenate([part.data[key] for part in sets]) for key in first.data}
    known = [key for key in first.final if all(key in part.final for part in sets)]
    final = {key: np.concatenate([part.final[key] for part in sets]) for key in known}
    sources = list(dict.fromkeys(str(part.attrs.get("source", "")) for part in sets))
    shared = {key: value for part in reversed(sets) for key, value in part.attrs.items() if key in SHARED and value}
    attrs = {"licence": "", **shared, "source": ", ".join(sources), "parts": [describe(part) for part in sets]}
    return Episodes(data, ends, attrs, final)


SHARED = ("env", "env_kwargs", "fps", "specs", "licence")
"""attributes that a mixture takes from the first part that has them"""


def describe(part: Episodes) -> dict[str, Any]:
    """What a part contributes, as JSON."""
    rewarded = "next.reward" in part.data
    return {
        "source": part.attrs.get("source", ""),
        "episodes": len(part),
        "steps": part.num_steps,
        "mean_return": float(part.returns().mean()) if rewarded else 0.0,
    }


def reward_type(episodes: Episodes) -> str | None:
    """What rewards the environment was asked for when they were recorded; None: nothing special, or not known."""
    return (episodes.attrs.get("env_kwargs") or {}).get("reward_type")


def _require_same(what: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise UserError(f"sets of different {what} cannot be mixed: {ours} and {theirs}")
