"""Faults of a dataset that training would not report: what is wrong, where, and what to do about it.

Errors make training wrong or impossible, warnings deserve a look, infos are facts. T steps, E episodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..envs.identity import known_as, may_be_same
from ..spec import ArraySpec, EnvSpec, split_pictures
from .alignment import misaligned
from .episodes import Episodes
from .meaning import mistaken
from .timing import Level, mistimed
from .validity import OBS, picture_fault

MUCH_CLIPPED = 0.25
"""share of actions at a limit above which it is a warning"""
BARELY = 1e-5
"""range relative to size below which a dimension is dead: float32 resolves 1e-7"""
SHOWN = 8
"""indices listed in a message before it says how many more"""


@dataclass(frozen=True)
class Finding:
    """One fault or fact."""

    level: Level
    key: str
    message: str
    """what and where, then the fix; one line"""


def check(episodes: Episodes, spec: EnvSpec | None = None) -> list[Finding]:
    """Everything found, the worst first.

    Args:
        episodes: loaded with `strict=False`, so that faults arrive here.
        spec: the environment the set is meant for; None: limits and rates that the set itself records.
    """
    faults = (
        _pictures,
        _elsewhere,
        _shapes,
        _not_finite,
        _lengths,
        _flags,
        _rate,
        _limits,
        _constant,
        _rewards,
        _duplicates,
        _absent,
        _shifted,
        _times,
        _differing,
        _meaning,
        _barely,
    )
    found = [finding for fault in faults for finding in fault(episodes, spec)]
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.level))


def _pictures(episodes: Episodes, spec: EnvSpec | None) -> Iterator[Finding]:
    for name in split_pictures(episodes.obs_specs())[0]:
        key = OBS + name
        if spec is not None and name not in spec.obs:
            continue  # nobody looks at it
        if message := picture_fault(episodes.data[key]):
            yield Finding("error", key, message)


def _elsewhere(episodes: Episodes, spec: EnvSpec | None) -> Iterator[Finding]:
    if spec is not None and (message := recorded_elsewhere(episodes, spec.id)):
        yield Finding("error", "env", message)


def recorded_elsewhere(episodes: Episodes, env: str) -> str:
    """What to do where a set says that it was recorded in another environment; empty if it does not."""
    recorded = str(episodes.attrs.get("env") or "")
    if may_be_same(recorded, env):
        return ""
    meant = f"`noisepilot data convert SOURCE TARGET --env {env}`"
    return f"recorded in {recorded}, not in {env}: say --env {known_as(recorded)}, or if they are meant for it, {meant}"


def _shapes(episodes: Episodes, spec: EnvSpec | None) -> Iterator[Finding]:
    if spec is None:
        return
    wanted = {OBS + name: array.shape for name, array in spec.obs.items()} | {"action": spec.action.shape}
    for key, shape in wanted.items():
        if key not in episodes.data:
            yield Finding("error", key, f"absent, but {spec.id} has it: choose the environment the set is from")
        elif episodes.data[key].shape[1:] != tuple(shape):
            ours = episodes.data[key].shape[1:]
            yield Finding("error", key, f"shape {ours}, but {spec.id} has {tuple(shape)}: choose its environment")


def _not_finite(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    for key, value in episodes.data.items():
        bad = ~np.isfinite(value.reshape(len(value), -1)).all(1) if value.dtype.kind == "f" else np.zeros(1, bool)
        if bad.any():
            where = np.unique(np.searchsorted(episodes.ends, np.flatnonzero(bad), side="right"))
            message = f"{bad.sum()} steps hold NaN or infinity, in episodes {_some(where)}: drop or repair them"
            yield Finding("error", key, message)


def _lengths(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    lengths = episodes.lengths
    if (lengths == 0).any():
        empty = _some(np.flatnonzero(lengths == 0))
        yield Finding("error", "episode_ends", f"episodes {empty} have no steps: drop them")
    if (lengths == 1).any():
        single = _some(np.flatnonzero(lengths == 1))
        yield Finding("warning", "episode_ends", f"episodes {single} have one step: check how episodes were cut")
    low, median, high = lengths.min(), np.median(lengths), lengths.max()
    message = f"{len(lengths)} episodes of {low} to {high} steps (median {median:g}), {episodes.num_steps} in all"
    yield Finding("info", "episode_ends", message)


def _flags(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    inside = np.ones(episodes.num_steps, bool)
    inside[episodes.ends[episodes.lengths > 0] - 1] = False
    for key in ("next.terminated", "next.truncated"):
        count = int((episodes.data[key].astype(bool) & inside).sum()) if key in episodes.data else 0
        if count:
            yield Finding("error", key, f"set on {count} steps inside episodes: cut the episodes there")


def _rate(episodes: Episodes, spec: EnvSpec | None) -> Iterator[Finding]:
    fps = float(episodes.attrs.get("fps") or 0)
    if not fps:
        yield Finding("info", "fps", "not recorded: a deployment cannot check its control rate; add the attribute")
    elif spec is not None and abs(fps - spec.control_hz) > 0.01 * spec.control_hz:
        message = f"{fps:g}, but {spec.id} acts at {spec.control_hz:g} Hz: resample or correct the attribute"
        yield Finding("warning", "fps", message)


def _limits(episodes: Episodes, spec: EnvSpec | None) -> Iterator[Finding]:
    limits = spec.action if spec is not None else episodes.action_spec()
    action = episodes.data["action"]
    if limits.low is None or limits.high is None or action.shape[1:] != tuple(limits.shape):
        return
    low, high, slack = _bounds(limits)
    outside = (action < low - slack) | (action > high + slack)
    if outside.any():
        dims, share = np.flatnonzero(outside.any(0)), 100 * outside.any(1).mean()
        message = f"{share:.3g} % of steps exceed the limits, in dimensions {_some(dims)}: clip or rescale them"
        yield Finding("error", "action", message)
    clipped = float(((action <= low + slack) | (action >= high - slack)).mean())
    if clipped > 0:
        message = f"{100 * clipped:.3g} % of the elements lie at a limit: if much, the demonstrator was clipped"
        yield Finding("warning" if clipped > MUCH_CLIPPED else "info", "action", message)


def _bounds(limits: ArraySpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.array(limits.low, np.float64), np.array(limits.high, np.float64)
    width = high - low
    # Values went through float32 on their way here.
    return low, high, 1e-6 * np.where(np.isfinite(width), width, 1.0)


def _constant(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    for key in ("action", *episodes.obs_keys):
        value = episodes.data[key]
        if value.ndim != 2:
            continue
        dims = np.flatnonzero((value == value[:1]).all(0))
        if len(dims):
            message = f"dimensions {_some(dims)} of {value.shape[1]} never change: check the recording or drop them"
            yield Finding("warning", key, message)


def _rewards(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    reward = episodes.data.get("next.reward")
    if reward is None:
        yield Finding("info", "next.reward", "not recorded: fine for imitation, offline RL needs it")
    elif not reward.any():
        message = "zero everywhere: fine for imitation; for offline RL, do any episodes reach the goal?"
        yield Finding("warning", "next.reward", message)


def _duplicates(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    seen: set[bytes] = set()
    repeated = []
    for index, episode in enumerate(episodes):
        digest = hashlib.sha256()
        for key in ("action", *episodes.obs_keys):
            digest.update(np.ascontiguousarray(episode[key]).data)
        if len(episode["action"]) and digest.digest() in seen:
            repeated.append(index)
        seen.add(digest.digest())
    if repeated:
        message = f"{len(repeated)} episodes repeat an earlier one ({_some(repeated)}): drop them, or vary the seed"
        yield Finding("warning", "episode_ends", message)


def _absent(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    for key, count in (episodes.attrs.get("absent_chunks") or {}).items():
        message = f"{count} chunks of the source had no file and hold its fill value: if it was copied, copy it again"
        yield Finding("warning", key, message)


def _shifted(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    yield from (Finding("warning", "action", message) for message in misaligned(episodes))


def _times(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    yield from (Finding(level, key, message) for level, key, message in mistimed(episodes))


def _differing(episodes: Episodes, spec: EnvSpec | None) -> Iterator[Finding]:
    ours = {key: array for key, array in episodes.specs().items() if key in episodes.data}
    theirs = {} if spec is None else {OBS + name: array for name, array in spec.obs.items()} | {"action": spec.action}
    for key in sorted(ours.keys() & theirs.keys()):
        if difference := ours[key].disagreement(theirs[key]):
            assert spec is not None
            message = f"means something else than in {spec.id}: {difference}; convert it, or correct its convention"
            yield Finding("error", key, message)


def _meaning(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    yield from (Finding(level, "action", message) for level, message in mistaken(episodes))


def _barely(episodes: Episodes, _: EnvSpec | None) -> Iterator[Finding]:
    for key in ("action", *episodes.obs_keys):
        value = episodes.data[key]
        if value.ndim != 2 or value.dtype.kind != "f" or not np.isfinite(value).all():
            continue
        width = np.ptp(value.astype(np.float64), axis=0)
        dims = np.flatnonzero((width > 0) & (width < BARELY * np.abs(value).max(0)))
        if len(dims):
            message = (
                f"dimensions {_some(dims)} change by less than {BARELY:g} of their size: normalised, that is noise"
            )
            yield Finding("warning", key, message)


def _some(indices: np.ndarray | list[int]) -> str:
    listed = ", ".join(str(int(i)) for i in indices[:SHOWN])
    return listed + (f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else "")
