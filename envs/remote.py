"""The Core of foreign environments: slots in worker processes, one message per worker and chunk.

N slots, M running, n actions per chunk, A action dimensions.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import UserError
from ..spec import ArraySpec, EnvSpec
from .core import State, Step
from .episodes import Episodes, Outcome, check_seeds
from .process import HERE, Place, Process, WorkerEndedError, ask, close_all, exchange
from .threads import cores
from .wire import Message

LIVES = 3
"""times in a row that a worker is started anew: one that dies more often without ending an episode is a fault"""


class RemoteCore:
    """N slots spread over processes. A slot's state is its seed and its actions since, restored by replay.

    Environments with a method `physics() -> (Q,)` also start from such a state: `reset(seeds, state=...)` takes
    its array `physics` (S, Q), as `get_state` gives it and as data sets record it.

    A worker that dies is started anew. The episodes it ran are void (see `Step`), and `voided` counts them.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        processes: list[Process],
        makes: list[Message],
        dtypes: Mapping[str, str],
        physics: int = 0,
    ) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.processes = processes
        self.makes = makes
        self.deaths = np.zeros(len(processes), np.int64)
        self.lost = np.zeros(num_envs, bool)
        self.voided = 0
        self.episodes = Episodes(spec, num_envs, dtypes)
        self.owner, self.local = shares(num_envs, len(processes))
        self.seeds = np.full(num_envs, -1)
        self.starts = np.full((num_envs, physics), np.nan)  # NaN: drawn from the seed
        self.history: list[list[np.ndarray]] = [[] for _ in range(num_envs)]
        self._finalizer = weakref.finalize(self, close_all, processes)

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Start episodes by seed, or at `state["physics"]` (S, Q) where the environment can."""
        chosen = self.episodes.select(slots)
        checked = check_seeds(seeds, chosen)
        starts = self._starts(chosen, state)
        for row, slot in enumerate(chosen):
            self.seeds[slot], self.history[slot], self.starts[slot] = checked[row], [], starts[row]
        self.lost[chosen], self.episodes.ended[chosen] = False, True
        head = {"seeds": np.array(checked)}
        obs = observations(self._ask("reset", chosen, head, self._given(starts), again=True))
        self.episodes.begin(chosen, obs)
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Execute a chunk of actions, (N, n, A)."""
        slots, action = self.episodes.admit(action)
        if not len(slots):
            return self.episodes.idle(action.shape[1])
        there = ~self.lost[slots]
        arrays = self._ask("step", slots[there], {}, {"action": action[there]})
        there = ~self.lost[slots]  # some may have been lost just now
        if not there.any():
            return self._void(self.episodes.idle(action.shape[1]), slots)
        slots, lost, action = slots[there], slots[~there], action[there]
        outcome = Outcome(
            obs=observations(arrays),
            reward=arrays["reward"],
            terminated=arrays["terminated"],
            truncated=arrays["truncated"],
            signals={name: arrays[name] for name in self.spec.signals},
        )
        step, last = self.episodes.record(slots, outcome)
        for row, slot in enumerate(slots):
            self.history[slot].append(action[row, : last[row] + 1])
        self.deaths[self.owner[slots[self.episodes.ended[slots]]]] = 0
        return self._void(step, lost)

    def _void(self, step: Step, lost: np.ndarray) -> Step:
        """Say that the episodes of slots are lost."""
        if not len(lost):
            return step
        truncated = step.truncated.copy()
        truncated[lost, 0] = True
        self.lost[lost], self.episodes.ended[lost] = False, True
        self.voided += len(lost)
        return replace(step, truncated=truncated)

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Seed and actions so far, padded by zeros, and the observation that a replay must reach."""
        chosen = self.episodes.select(slots)
        width = self.spec.action.dim
        past = [np.concatenate([np.zeros((0, width)), *self.history[slot]]) for slot in chosen]
        actions = np.zeros((len(chosen), max(map(len, past), default=0), width))
        for row, done in enumerate(past):
            actions[row, : len(done)] = done
        seen = {f"obs.{name}": value[chosen] for name, value in self.episodes.obs.items()}
        lengths = np.array([len(done) for done in past], np.int64)
        own = {"seed": self.seeds[chosen], "length": lengths, "actions": actions}
        if self.starts.shape[1]:
            own |= {"start": self.starts[chosen], **self._ask("physics", chosen, {}, {})}
        return own | seen | self.episodes.get_state(chosen)

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Start as before and repeat the actions; raises a UserError if that leads elsewhere."""
        chosen = self.episodes.select(slots)
        starts = state.get("start", self.starts[chosen])
        started = np.flatnonzero(state["seed"] >= 0)
        head = {"seeds": state["seed"][started], "lengths": state["length"][started]}
        past = {"action": state["actions"][started], **self._given(starts[started])}
        replayed = observations(self._ask("replay", chosen[started], head, past, again=True))
        obs = observations(state)
        if any(not np.array_equal(value, obs[name][started]) for name, value in replayed.items()):
            raise UserError(
                f"{self.spec.id} is not deterministic: the same seed and actions led elsewhere, "
                "so its states cannot be restored"
            )
        for row, slot in enumerate(chosen):
            self.seeds[slot], self.starts[slot] = state["seed"][row], starts[row]
            self.history[slot] = [state["actions"][row, : state["length"][row]]]
        self.lost[chosen] = False
        self.episodes.set_state(chosen, state, obs)
        return obs

    def expert(self) -> np.ndarray:
        """What the environments' scripted experts do now, (N, 1, A); zero where no episode runs."""
        action = np.zeros((self.num_envs, 1, self.spec.action.dim))
        running = np.flatnonzero(~self.episodes.ended & ~self.lost)
        if len(running):
            answer = self._ask("expert", running, {}, {})
            if answer:
                action[running[~self.lost[running]], 0] = answer["action"]
        return action

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture as the environment draws it, sampled to (height, width, 3) uint8."""
        process = self.processes[self.owner[slot]]
        process.send(Message({"op": "render", "slot": int(self.local[slot])}))
        picture = process.receive().arrays["picture"]
        rows = np.arange(height) * picture.shape[0] // height
        columns = np.arange(width) * picture.shape[1] // width
        return picture[rows[:, None], columns]

    def close(self) -> None:
        """End the processes."""
        self._finalizer()

    def _starts(self, slots: np.ndarray, state: State | None) -> np.ndarray:
        """Physics to start from, (S, Q), NaN where the seed decides."""
        size = self.starts.shape[1]
        if state is None:
            return np.full((len(slots), size), np.nan)
        if not size or "physics" not in state:
            raise UserError(f"{self.spec.id} runs in workers: it starts by seed, not from a given state")
        physics = np.asarray(state["physics"], np.float64)
        if physics.shape != (len(slots), size):
            raise UserError(f"{self.spec.id} starts from states of shape ({len(slots)}, {size}), got {physics.shape}")
        return physics

    def _given(self, starts: np.ndarray) -> dict[str, np.ndarray]:
        return {"start": starts} if self.starts.shape[1] else {}

    def _ask(
        self,
        op: str,
        slots: np.ndarray,
        head: Mapping[str, np.ndarray],
        arrays: Mapping[str, np.ndarray],
        *,
        again: bool = False,
    ) -> dict[str, np.ndarray]:
        """Ask the owners of slots (M,) and join their rows; head and arrays have a row per slot.

        Rows of a worker that died are missing, unless it is asked `again` once it is back.
        """
        owner = self.owner[slots]
        parts = {w: np.flatnonzero(owner == w) for w in np.unique(owner).tolist()}

        def message(rows: np.ndarray) -> Message:
            rest = {name: value[rows].tolist() for name, value in head.items()}
            local = self.local[slots[rows]].tolist()
            return Message({"op": op, "slots": local, **rest}, {k: v[rows] for k, v in arrays.items()})

        replies: dict[int, Message] = {}
        waiting = list(parts)
        while waiting:
            heard, dead = ask(self.processes, {worker: message(parts[worker]) for worker in waiting})
            replies |= heard
            for worker, error in dead.items():
                self._revive(worker, error)
            waiting = list(dead) if again else []
        order = np.argsort(np.concatenate([parts[worker] for worker in replies])) if replies else []
        names = next(iter(replies.values()), Message({})).arrays
        return {name: np.concatenate([reply.arrays[name] for reply in replies.values()])[order] for name in names}

    def _revive(self, worker: int, error: WorkerEndedError) -> None:
        """Start a worker anew; the episodes that it ran are lost."""
        self.deaths[worker] += 1
        if self.deaths[worker] > LIVES:
            self.close()
            raise error
        running = (self.owner == worker) & ~self.episodes.ended & ~self.lost
        print(f"{error}: started anew, {running.sum()} running episodes are void", file=sys.stderr)
        self.processes[worker].close()
        self.processes[worker] = self.processes[worker].again()
        exchange(self.processes, {worker: self.makes[worker]})
        self.lost |= running


def observations(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those arrays that are observations, by their names."""
    return {key.removeprefix("obs."): value for key, value in arrays.items() if key.startswith("obs.")}


def shares(num_envs: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """For every slot its worker and its index there; consecutive slots share a worker."""
    parts = np.array_split(np.arange(num_envs), workers)
    owner = np.concatenate([np.full(len(part), worker) for worker, part in enumerate(parts)])
    return owner, np.concatenate([np.arange(len(part)) for part in parts])


def make_remote(
    env: str,
    num_envs: int,
    kwargs: Mapping[str, Any],
    known: Mapping[str, Any] = MappingProxyType({}),
    place: Place = HERE,
) -> RemoteCore:
    """Start workers for a registered id or `package.module:factory`; `known` replaces fields of their EnvSpec.

    `place` is the interpreter they run in.
    """
    try:
        json.dumps(dict(kwargs))
    except TypeError as error:
        raise UserError(f"keywords of {env} travel to its workers as JSON: {error}") from error
    limit, forwarded = None, dict(kwargs)
    if ":" in env:  # Gymnasium's own `make` knows this keyword, a factory need not
        limit = forwarded.pop("max_episode_steps", None)
    processes = [Process(env, place) for _ in range(min(num_envs, cores()))]
    counts = np.bincount(shares(num_envs, len(processes))[0])
    makes = [Message({"op": "make", "env": env, "kwargs": forwarded, "slots": int(n)}) for n in counts]
    facts = exchange(processes, dict(enumerate(makes)))[0].head
    limit = known.get("max_steps") or limit or facts["max_steps"]
    if limit is None:
        close_all(processes)
        raise UserError(
            f"{env} does not say how long an episode may be: give max_episode_steps, "
            """on the command line as --env-kwargs '{"max_episode_steps": 500}'"""
        )
    dtypes = {name: leaf["dtype"] for name, leaf in facts["obs"].items()}
    spec = replace(remote_spec(env, facts, limit, kwargs), **{**known, "max_steps": limit})
    return RemoteCore(spec, num_envs, processes, makes, dtypes, facts["physics"])


def remote_spec(env: str, facts: Mapping[str, Any], limit: int, kwargs: Mapping[str, Any]) -> EnvSpec:
    """A worker's facts as a spec."""
    action = facts["action"]
    return EnvSpec(
        id=env,
        obs={name: array_spec(leaf) for name, leaf in facts["obs"].items()},
        action=replace(array_spec(action), low=tuple(action["low"]), high=tuple(action["high"])),
        control_hz=facts["control_hz"],
        max_steps=limit,
        signals=tuple(facts["signals"]),
        instruction=facts["instruction"],
        kwargs=dict(kwargs),
    )


def array_spec(fact: Mapping[str, Any]) -> ArraySpec:
    """Shape, names and unit that a worker reported."""
    return ArraySpec(tuple(fact["shape"]), tuple(fact["names"]), unit=fact["unit"])
