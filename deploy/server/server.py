"""The server: websocket connections on one event loop, each a strict row of questions and answers.

The protocol is openpi's: the first frame says what is served, then every binary frame is a msgpack map of
observations and gets one answer, binary with `actions`, or text with one line that says why not.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import UserError, at_least, positive
from ..runtime.policy import Policy
from ..runtime.remote import OWN
from ..runtime.spec import PolicyError, mismatch
from ..runtime.wire import WireError, pack
from .batcher import Answer, Batcher, InferenceError, warm_up
from .metrics import Metrics
from .request import Request, largest, read_request

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response

PROTOCOL = 1
log = logging.getLogger("noisepilot.serve")


@dataclass(frozen=True)
class Settings:
    """Where to listen, and what a client may cost."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: a free one"""
    token: str | None = field(default=None, repr=False)
    max_batch: int = 16
    """rows in one call of the policy, from one or several clients"""
    max_clients: int = 64
    handshake_s: float = 10.0
    idle_s: float = 600.0
    """longest time without a whole message"""
    send_s: float = 10.0
    """longest time that a client may take to accept an answer"""

    def __post_init__(self) -> None:
        at_least(1, self, "max_batch", "max_clients")
        positive(self, "handshake_s", "idle_s", "send_s")


class Server:
    """Serves one policy.

    Raises:
        UserError: if the package websockets or msgpack is missing, or the policy cannot be played in batches.
    """

    def __init__(self, policy: Policy, settings: Settings | None = None) -> None:
        try:
            import msgpack  # noqa: F401
            import websockets  # noqa: F401
        except ImportError as error:
            raise UserError(f"{error.name} is missing: pip install 'noisepilot[serve]'") from None
        self.policy, self.settings, self.metrics = policy, settings or Settings(), Metrics()
        try:
            warm_up(policy, self.settings.max_batch)
        except InferenceError as error:
            raise UserError(f"{error}: if it takes one observation at a time, say --max-batch 1") from None
        self._batcher = Batcher(policy, self.settings.max_batch, self.metrics)
        own = {"protocol": PROTOCOL, "rows": self.settings.max_batch, "digest": policy.digest}
        self._welcome = pack({**policy.metadata, OWN: own})

    async def run(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; `ready` is told the port.

        Raises:
            UserError: if the address cannot be had.
        """
        from websockets.asyncio.server import serve

        settings = self.settings
        try:
            listening = await serve(
                self._connection,
                settings.host,
                settings.port,
                origins=[None],  # pages in a browser may not reach what listens on this machine
                compression=None,
                open_timeout=settings.handshake_s,
                close_timeout=1,
                max_size=largest(self.policy.spec, settings.max_batch),
                max_queue=1,
                process_request=self._admit,
                logger=_silent(),
            )
        except OSError as error:
            where, why = f"{settings.host}:{settings.port}", os.strerror(error.errno or 0)
            raise UserError(f"cannot listen on {where} ({why}): give another --host or --port") from None
        inference = asyncio.create_task(self._batcher.run())
        async with listening:
            ready(listening.sockets[0].getsockname()[1])
            await stop.wait()
        inference.cancel()
        with suppress(asyncio.CancelledError):
            await inference

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        path = urlsplit(request.path).path
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if not self._knows_token(request.headers.get_all("Authorization")):
            self.metrics.errors["unauthorized"] += 1
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "send the header 'Authorization: Api-Key TOKEN'\n")
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, self.metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return response
        if self.metrics.clients >= self.settings.max_clients:
            self.metrics.errors["full"] += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "as many clients as the server takes\n")
        return None

    def _knows_token(self, sent: list[str]) -> bool:
        if self.settings.token is None:
            return True
        words = sent[0] if len(sent) == 1 else ""
        return hmac.compare_digest(words.encode(errors="surrogateescape"), f"Api-Key {self.settings.token}".encode())

    async def _connection(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        self.metrics.clients += 1
        try:
            await self._send(connection, self._welcome)
            await self._converse(connection)
        except ConnectionClosed as closed:
            code = closed.sent.code if closed.sent is not None and not closed.rcvd_then_sent else None
            kind = {1002: "malformed", 1007: "malformed", 1009: "oversize"}.get(code or 0)
            self.metrics.errors.update([kind] if kind else [])
        except Exception:
            self.metrics.errors["internal"] += 1
            log.exception("a connection failed")
        finally:
            self.metrics.clients -= 1

    async def _converse(self, connection: ServerConnection) -> None:
        previous_s = None
        while True:
            try:
                async with asyncio.timeout(self.settings.idle_s):
                    frame = await connection.recv()
            except TimeoutError:
                self.metrics.errors["idle"] += 1
                await connection.close(1001, f"no message within {self.settings.idle_s:g} s")
                return
            start = time.perf_counter()
            self.metrics.requests += 1
            kind = ""
            try:
                reply = await self._answer(frame, previous_s)
            except _Refusal as refusal:
                kind, reply = refusal.kind, str(refusal)
                self.metrics.errors[kind] += 1
            if not await self._send(connection, reply):
                return
            previous_s = time.perf_counter() - start
            self.metrics.latency.observe(previous_s)
            if kind == "spec":
                await connection.close(1008, "the client expects another policy")
                return

    async def _answer(self, frame: bytes | str, previous_s: float | None) -> bytes:
        if isinstance(frame, str):
            raise _Refusal("malformed", "send msgpack in a binary frame, not text")
        try:
            request = read_request(frame, self.policy.spec, self.settings.max_batch)
            if request.expects is not None:
                return self._compare(request.expects)
            feeds, batched = self.policy.feeds(request.obs, request.noise, prefix=request.prefix)
            answer = await self._batcher.submit(feeds)
        except WireError as error:
            raise _Refusal("malformed", str(error)) from None
        except InferenceError as error:
            log.error("%s", error)
            raise _Refusal("inference", str(error)) from None
        except PolicyError as error:
            raise _Refusal("refused", str(error)) from None
        return _packed(request, answer, batched, previous_s)

    def _compare(self, expects: Any) -> bytes:
        difference = mismatch(self.policy.spec, expects, "at the client")
        if difference:
            raise _Refusal("spec", f"this server serves another policy: {difference}")
        return pack({OWN: {"accepted": True}})

    async def _send(self, connection: ServerConnection, message: bytes | str) -> bool:
        from websockets.exceptions import ConnectionClosed

        try:
            async with asyncio.timeout(self.settings.send_s):
                await connection.send(message)
        except TimeoutError:
            self.metrics.errors["slow"] += 1
            connection.transport.abort()
            return False
        except ConnectionClosed:
            self.metrics.errors["dropped"] += 1
            return False
        return True


class _Refusal(Exception):  # noqa: N818
    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


def _packed(request: Request, answer: Answer, batched: bool, previous_s: float | None) -> bytes:
    timing = {"infer_ms": 1e3 * answer.infer_s, "queue_ms": 1e3 * answer.queue_s}
    if previous_s is not None:
        timing["prev_total_ms"] = 1e3 * previous_s
    own = {} if request.number is None else {OWN: {"id": request.number}}
    return pack({"actions": answer.actions if batched else answer.actions[0], "server_timing": timing, **own})


def _silent() -> logging.Logger:
    # The package logs a traceback for every handshake that is none; what matters is counted instead.
    logger = logging.getLogger("noisepilot.serve.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
