"""A policy that a server plays: `noisepilot serve`, or openpi's server.

Shapes: B batch, T observations, D elements, N draws, H horizon, A action dim.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from .link import ConnectionLostError, Link
from .openpi import question
from .policy import Array, Policy
from .spec import PolicyError, Spec, mismatch
from .wire import INTEGER, Reader, WireError, pack

OWN = "noisepilot"
"""key of what openpi's protocol does not have"""


class RemotePolicy(Policy):
    """`spec` and `act` as of a local policy; observations are checked and noise is drawn on this side.

    So the same generator gives the same actions as the file itself, and a question that was lost with its connection
    is asked once more. Every answer carries the number of its question.

    Args:
        address: `ws://host:port`.
        spec: what this side expects. A server of noisepilot that serves something else is refused. openpi's servers
            do not say what they serve, so they need it; see `act`.
        token: what the server was given with `--token-file`; openpi's `api_key`.
        timeout_s: longest wait for a connection and for each answer.

    Raises:
        PolicyError: in one line, if the server cannot be reached, refuses, or serves something else.
    """

    def __init__(
        self, address: str, *, spec: Spec | None = None, token: str | None = None, timeout_s: float = 10.0
    ) -> None:
        self._link, self._lock, self._numbers = Link(address, token, timeout_s), threading.Lock(), count()
        self._welcome = self._link.open()
        try:
            said = self._own = self._welcome.get(OWN)
            if isinstance(said, dict):
                super().__init__(self._play, {k: v for k, v in self._welcome.items() if k != OWN}, address)
                self.digest, self._rows = str(said.get("digest")), int(said["rows"])
                self._check(spec)
            elif spec is None:
                raise PolicyError(f"{address} does not say what it serves: give spec=Spec(...)")
            else:
                super().__init__(self._play, {"schema": 1, **asdict(spec)}, address)
        except BaseException:
            self.close()
            raise

    def act(
        self,
        obs: Mapping[str, Any],
        noise: Any = None,
        *,
        generator: np.random.Generator | None = None,
        prefix: Any = None,
    ) -> Array:
        """Action chunk (H, A), or (B, H, A) for a batch, as `Policy.act`.

        An openpi server gets the observations of `spec` without their time axis, which must have length 1, types as
        they are, and all other entries of `obs` (a prompt, say). It knows no batches, and draws its noise itself.

        Raises:
            PolicyError: also if the server refuses, is gone, does not answer in time, or now serves another policy.
        """
        if self._own:
            return super().act(obs, noise, generator=generator, prefix=prefix)
        if noise is not None or prefix is not None:
            raise PolicyError(f"{self._link.address} draws its noise itself and knows no prefix: leave them out")
        return self._exchange(pack(question(self.spec, obs)), None, self.spec.action["shape"], again=False)

    def close(self) -> None:
        """End the connection; the next `act` would open another."""
        self._link.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _play(self, feeds: dict[str, Array]) -> Array:
        rows = len(feeds["noise"])
        parts = range(0, max(rows, 1), self._rows)
        chunks = [self._ask({name: a[i : i + self._rows] for name, a in feeds.items()}) for i in parts]
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)

    def _ask(self, feeds: dict[str, Array]) -> Array:
        obs = {name: feeds["observation." + name] for name in self.spec.observations}
        number = next(self._numbers)
        own = {"id": number, "noise": feeds["noise"]}
        if self.spec.max_prefix and (count := feeds["prefix_len"][0]):  # of one call, so all rows have the same length
            own["prefix"] = feeds["prefix_actions"][:, :count]
        frame = pack({**obs, OWN: own})
        return self._exchange(frame, number, (len(feeds["noise"]), *self.spec.action["shape"]), again=True)

    def _exchange(self, frame: bytes, number: int | None, shape: tuple[int, ...], *, again: bool) -> Array:
        with self._lock:
            try:
                answer = self._once(frame)
            except PolicyError as error:
                if not again:  # openpi's servers hang up after an error, and their policies may remember the question
                    self.close()
                if not again or not isinstance(error, ConnectionLostError):
                    raise
                answer = self._once(frame)
            try:
                return _actions(answer, number, shape)
            except WireError as error:
                self.close()
                raise PolicyError(f"{self._link.address} gave a wrong answer: {error}") from None

    def _once(self, frame: bytes) -> bytes:
        if not self._link.is_open:
            welcome = self._link.open()
            if welcome != self._welcome:
                self.close()
                raise PolicyError(f"{self._link.address} now serves another policy: make a new RemotePolicy")
        return self._link.ask(frame)

    def _check(self, spec: Spec | None) -> None:
        difference = mismatch(self.spec, asdict(spec), "here") if spec is not None else None
        if difference:
            raise PolicyError(f"{self._link.address} serves another policy: {difference}")


def open_policy(where: str | Path, *, token: str | None = None, overlay: str | Path | None = None) -> Policy:
    """A file's policy, or a server's if `where` begins with `ws://` or `wss://`; `overlay` as for `Policy.load`.

    Raises:
        PolicyError: as `Policy.load` and `RemotePolicy`.
    """
    policy = RemotePolicy(str(where), token=token) if is_address(where) else Policy.load(where)
    return policy.under(overlay)


def is_address(where: str | Path) -> bool:
    """Whether this names a server, not a file."""
    return str(where).startswith(("ws://", "wss://"))


def _actions(answer: bytes, number: int | None, shape: tuple[int, ...]) -> Array:
    reader, actions, answered = Reader(answer), None, None
    for key in reader.entries():
        if key == "actions":
            actions = reader.array(key)
        elif key == OWN:
            for inner in reader.entries():
                answered = reader.take(INTEGER, "number") if inner == "id" else reader.skip()
        else:
            reader.skip()
    reader.end()
    if actions is None or actions.shape != shape:
        raise WireError(f"actions of shape {None if actions is None else actions.shape}, expected {shape}")
    if answered != number:
        raise WireError(f"to question {answered}, not {number}")
    return actions.astype(np.float32)
