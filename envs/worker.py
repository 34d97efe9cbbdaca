"""A worker process that steps some slots of a foreign environment: `python -m noisepilot.envs.worker`.

It answers one message per chunk and ends when its input does, so it never outlives its parent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BufferedIOBase
from typing import Any

import gymnasium as gym
import numpy as np

from ..errors import UserError
from .foreign import boxes, check_action, describe, open_env, read, succeeded
from .wire import Message, receive, send

OPERATIONS = ("reset", "step", "replay", "expert", "physics", "render")
"""what a parent may ask for"""


class Worker:
    """The slots of one worker, S addressed at a time."""

    def __init__(self, env: str, kwargs: dict[str, Any], slots: int) -> None:
        self.envs: list[gym.Env] = [open_env(env, kwargs) for _ in range(slots)]
        self.facts = describe(env, self.envs[0])
        self.boxes = boxes(env, self.envs[0].observation_space)
        self.dtype = check_action(env, self.envs[0].action_space).dtype

    def reset(self, slots: Sequence[int], seeds: Sequence[int], start: np.ndarray | None = None) -> Message:
        """First observations, name -> (S, ...); rows of `start` (S, Q) that are not NaN replace the drawn physics."""
        given: list[dict[str, Any] | None] = [None] * len(slots)
        if start is not None:
            given = [None if np.isnan(row).any() else {"physics": row} for row in start]
        first = zip(slots, seeds, given, strict=True)
        seen = [read(self.envs[slot].reset(seed=seed, options=row)[0], self.boxes) for slot, seed, row in first]
        return Message({}, {f"obs.{name}": np.stack([obs[name] for obs in seen]) for name in self.boxes})

    def step(self, slots: Sequence[int], action: np.ndarray, lengths: Sequence[int] | None = None) -> Message:
        """Execute (S, n, A), per slot up to its end or `lengths`; what comes after it stays zero."""
        shape = action.shape[:2]
        out = {f"obs.{name}": np.zeros((*shape, *box.shape), box.dtype) for name, box in self.boxes.items()}
        out["reward"] = np.zeros(shape)
        out |= {name: np.zeros(shape) for name in self.facts["signals"]}
        out["terminated"], out["truncated"] = np.zeros(shape, bool), np.zeros(shape, bool)
        for row, slot in enumerate(slots):
            self._run(row, slot, action[row, : lengths[row] if lengths else None], out)
        return Message({}, out)

    def replay(
        self,
        slots: Sequence[int],
        seeds: Sequence[int],
        lengths: Sequence[int],
        action: np.ndarray,
        start: np.ndarray | None = None,
    ) -> Message:
        """Reset and repeat `lengths` actions of (S, L, A); observations after the last of them."""
        first = self.reset(slots, seeds, start).arrays
        after = self.step(slots, action, lengths).arrays
        final = {}
        for name, value in first.items():
            final[name] = np.stack([after[name][i, n - 1] if n else value[i] for i, n in enumerate(lengths)])
        return Message({}, final)

    def expert(self, slots: Sequence[int]) -> Message:
        """What the scripted experts of the environments do now, (S, A)."""
        for slot in slots:
            if not self.envs[slot].has_wrapper_attr("expert"):
                raise ValueError("it has no scripted expert")
        return Message({}, {"action": np.stack([self.envs[slot].get_wrapper_attr("expert")() for slot in slots])})

    def physics(self, slots: Sequence[int]) -> Message:
        """The simulator's state of slots, (S, Q)."""
        return Message({}, {"physics": np.stack([self.envs[slot].get_wrapper_attr("physics")() for slot in slots])})

    def render(self, slot: int) -> Message:
        """A picture, if the environment was made to give some."""
        picture = self.envs[slot].render()
        if not isinstance(picture, np.ndarray):
            raise ValueError("make it with render_mode='rgb_array' to have pictures")
        return Message({}, {"picture": picture})

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _run(self, row: int, slot: int, actions: np.ndarray, out: dict[str, np.ndarray]) -> None:
        for k, action in enumerate(actions.astype(self.dtype)):
            obs, reward, terminated, truncated, info = self.envs[slot].step(action)
            for name, value in read(obs, self.boxes).items():
                out[f"obs.{name}"][row, k] = value
            out["reward"][row, k] = reward
            for name in self.facts["signals"]:
                out[name][row, k] = (succeeded(info) if name == "success" else info.get(name)) or 0.0
            out["terminated"][row, k], out["truncated"][row, k] = terminated, truncated
            if terminated or truncated:
                return


def answer(worker: Worker | None, message: Message) -> tuple[Worker, Message]:
    """Do what a message asks."""
    head = dict(message.head)
    op = head.pop("op")
    if op == "make":
        worker = Worker(**head)
        return worker, Message(worker.facts)
    if worker is None:
        raise ValueError(f"'{op}' came before 'make'")
    if op not in OPERATIONS:
        raise ValueError(f"a worker cannot '{op}'")
    return worker, getattr(worker, op)(**head, **message.arrays)


def serve(source: BufferedIOBase, sink: BufferedIOBase) -> None:
    """Answer messages until there are no more; a fault of the environment is an answer too."""
    worker = None
    while (message := receive(source)) is not None:
        try:
            worker, reply = answer(worker, message)
        except Exception as error:  # whatever a foreign environment raises is told to the parent, in one line
            text = str(error).strip().partition("\n")[0]
            ours = isinstance(error, UserError)  # those name the environment already
            reply = Message({"error": text if ours else f"{type(error).__name__}: {text}", "named": ours})
        send(sink, reply)
    if worker:
        worker.close()


def main() -> None:
    """Keep the pipe to the parent for messages alone: what the environment prints goes to standard error."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(source, sink)
    except BrokenPipeError:
        os._exit(0)  # the parent is gone, nobody is left to tell


if __name__ == "__main__":
    main()
