"""A client's connection to a policy server: one question, one answer, in this order or not at all.

Whatever goes wrong between a question and its answer closes the connection, so that a late answer is never read as
that to the next question.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from .spec import PolicyError
from .wire import unpack_plain

LARGEST = 2**26
"""bytes of an answer"""
HINTS = {
    401: "the token is missing or wrong",
    403: "it refuses this client",
    503: "it has as many clients as it takes",
}


class ConnectionLostError(PolicyError):
    """The server went away; it may never have seen the question."""


class Link:
    """At most one open connection.

    Args:
        address: `ws://host:port`, or `wss://` through a proxy that ends TLS.
        token: sent as openpi's clients send their key.
        timeout_s: for connecting, and for each answer.
    """

    def __init__(self, address: str, token: str | None, timeout_s: float) -> None:
        self.address, self.timeout_s = address, timeout_s
        self._headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._stack = ExitStack()
        self._socket: Any = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._socket is not None

    def open(self) -> dict[str, Any]:
        """Connect; returns what the server says of itself.

        Raises:
            PolicyError: in one line, if it cannot be reached or refuses.
        """
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException
            from websockets.sync.client import connect
        except ImportError:
            raise PolicyError("websockets is missing: pip install msgpack websockets") from None
        options: dict[str, Any] = {"additional_headers": self._headers, "open_timeout": self.timeout_s}
        try:
            connection = connect(self.address, compression=None, max_size=LARGEST, close_timeout=1, **options)
            self._socket = self._stack.enter_context(connection)
        except InvalidStatus as error:
            status = error.response.status_code
            raise PolicyError(f"{self.address} answers {status}: {HINTS.get(status, 'no policy server')}") from None
        except TimeoutError:
            raise PolicyError(f"{self.address} does not answer within {self.timeout_s:g} s") from None
        except (OSError, WebSocketException, ValueError) as error:
            raise PolicyError(f"no policy server at {self.address} ({_line(error)})") from None
        try:
            metadata = unpack_plain(self._receive())
            if not isinstance(metadata, dict):
                raise PolicyError(f"{self.address} does not say what it serves: it is no policy server")
        except BaseException:
            self.close()
            raise
        return metadata

    def ask(self, frame: bytes) -> bytes:
        """Send one message and wait for its answer.

        Raises:
            ConnectionLostError: if the connection ended before the answer came.
            PolicyError: if the server refuses, or does not answer in time.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(frame)
        except ConnectionClosed as error:
            self.close()
            raise self._lost(error) from None
        except BaseException:
            self.close()
            raise
        return self._receive()

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._socket = None
        self._stack.close()

    def _receive(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            answer = self._socket.recv(self.timeout_s)
        except TimeoutError:
            self.close()
            raise PolicyError(f"{self.address} gave no answer within {self.timeout_s:g} s") from None
        except ConnectionClosed as error:
            self.close()
            raise self._lost(error) from None
        except BaseException:  # Ctrl-C between question and answer
            self.close()
            raise
        if isinstance(answer, str):
            raise PolicyError(f"{self.address}: {_last_line(answer)}")
        return answer

    def _lost(self, error: Any) -> PolicyError:
        if error.rcvd is not None and error.rcvd.code in (1008, 1009):  # by policy, for its size: again would not help
            return PolicyError(f"{self.address} closed the connection: {error.rcvd.reason or 'message too big'}")
        return ConnectionLostError(f"the connection to {self.address} was lost ({_line(error)})")


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _last_line(text: str) -> str:
    # openpi's servers send a whole traceback.
    return (text.strip().splitlines() or ["refused"])[-1]
