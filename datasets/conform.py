"""A recorded set as one environment sees it: its observations, its action limits, its rewards and ends.

What an environment can tell from an observation alone (`Relabels`) replaces what was recorded, so that rewards
in the data and in training are the same numbers. T steps, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..config import to_dict
from ..envs.identity import may_be_same
from ..errors import UserError
from ..spec import ArraySpec, EnvSpec, require_agreement
from .episodes import Episodes
from .validity import OBS


@runtime_checkable
class Relabels(Protocol):
    """The keywords of an environment (its task) that can tell outcomes from observations."""

    def relabel(self, obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Recorded observations name -> (T, ...) to this environment's, and to outcomes of having come there.

        Outcomes are `reward`, `terminated` and signals such as `success`, each (T,), as far as they can be told.
        """
        ...


def conform(episodes: Episodes, spec: EnvSpec, task: Any = None) -> tuple[Episodes, list[str]]:
    """Fit a set to an environment.

    Args:
        episodes: as recorded.
        spec: the environment.
        task: its keywords; only what `Relabels` is used.

    Returns:
        The set, and a line for everything that was changed; the lines also go into the attribute `notes`.

    Raises:
        UserError: where the environment has observations that the set lacks, or numbers mean something else.
    """
    notes: list[str] = []
    if not may_be_same(recorded_in := str(episodes.attrs.get("env") or ""), spec.id):
        notes.append(f"recorded in {recorded_in}, taken as {spec.id}")
    if isinstance(task, Relabels):
        episodes = _relabelled(episodes, spec, task, notes)
    episodes = _observed(episodes, spec, notes)
    action = _clipped(episodes.data["action"], spec.action, notes)
    require_agreement(
        "the dataset", episodes.obs_specs(), episodes.action_spec(), f"environment {spec.id}", spec.obs, spec.action
    )
    recorded = episodes.specs()
    specs: dict[str, ArraySpec] = {OBS + name: array for name, array in spec.obs.items()} | {"action": spec.action}
    specs = {key: array.filled(recorded.get(key, array)) for key, array in specs.items()}
    facts = {
        "env": spec.id,
        "env_kwargs": to_dict(spec.kwargs),
        "fps": spec.control_hz,
        "specs": to_dict(specs),
        "notes": [*(episodes.attrs.get("notes") or []), *notes],
    }
    return replace(episodes, data={**episodes.data, "action": action}, attrs={**episodes.attrs, **facts}), notes


def _relabelled(episodes: Episodes, spec: EnvSpec, task: Relabels, notes: list[str]) -> Episodes:
    """Observations and outcomes as the environment has them; episodes end where it would have ended them."""
    unknown = any(key not in episodes.final for key in episodes.obs_keys)
    if unknown:
        # As `Episodes.next_obs` has it: for the outcome alone, no later observation is made up.
        episodes = replace(episodes, final={key: episodes.data[key][episodes.ends - 1] for key in episodes.obs_keys})
        notes.append("what an episode's last action led to is not recorded: taken to be what was seen before it")
    steps, count = episodes.num_steps, len(episodes)
    led_to = np.arange(1, steps + 1)  # row of the observation after each step: the next one, or a final one
    led_to[episodes.ends - 1] = steps + np.arange(count)
    seen = {key: np.concatenate([episodes.data[key], episodes.final[key]]) for key in episodes.obs_keys}
    told = task.relabel({key.removeprefix(OBS): value for key, value in seen.items()})
    seen |= {OBS + name: told[name] for name in told if name in spec.obs}
    outcomes = {f"next.{name}": told[name][led_to] for name in told if name not in spec.obs}
    data = {**episodes.data, **{key: value[:steps] for key, value in seen.items()}, **outcomes}
    whole = _cut(episodes, data, {key: value[led_to] for key, value in seen.items()}, notes)
    return replace(whole, final={}) if unknown else whole


def _cut(
    episodes: Episodes, data: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], notes: list[str]
) -> Episodes:
    """Episodes up to the first step that terminates; `after` (T, ...): the observations that steps led to."""
    terminated = data.get("next.terminated", np.zeros(episodes.num_steps, bool)).astype(bool)
    lengths = episodes.lengths.copy()
    for index, (start, end) in enumerate(zip(episodes.starts, episodes.ends, strict=True)):
        if terminated[start:end].any():
            lengths[index] = terminated[start:end].argmax() + 1
    if dropped := int((episodes.lengths - lengths).sum()):
        notes.append(f"{dropped} steps behind the end of an episode are left out")
    rows = np.concatenate([np.arange(s, s + n) for s, n in zip(episodes.starts, lengths, strict=True)])
    ends = np.cumsum(lengths)
    kept = {key: value[rows] for key, value in data.items()}
    kept["next.terminated"] = terminated[rows]
    kept["next.truncated"] = np.zeros(len(rows), bool)
    kept["next.truncated"][ends - 1] = ~kept["next.terminated"][ends - 1]
    return Episodes(kept, ends, episodes.attrs, {key: value[rows][ends - 1] for key, value in after.items()})


def _observed(episodes: Episodes, spec: EnvSpec, notes: list[str]) -> Episodes:
    """Only the environment's observations."""
    wanted = {OBS + name for name in spec.obs}
    if missing := sorted(wanted - set(episodes.obs_keys)):
        has = ", ".join(episodes.obs_keys)
        raise UserError(f"{spec.id} has '{missing[0]}', the set only {has}: choose the environment it is from")
    if extra := sorted(set(episodes.obs_keys) - wanted):
        notes.append(f"{', '.join(extra)} left out: {spec.id} does not have them")
    return episodes.observing(spec.obs)


def _clipped(action: np.ndarray, spec: ArraySpec, notes: list[str]) -> np.ndarray:
    """Actions within the limits, as the environment would have executed them."""
    if spec.low is None or spec.high is None or action.shape[1:] != tuple(spec.shape):
        return action
    clipped = np.clip(action, spec.low, spec.high).astype(action.dtype)
    if (changed := (clipped != action).any(1)).any():
        furthest = np.abs(action - clipped).max()
        notes.append(f"actions clipped in {100 * changed.mean():.3g} % of the steps, by up to {furthest:.3g}")
    return clipped
