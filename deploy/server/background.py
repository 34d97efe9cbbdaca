"""A server in a thread of this process, for notebooks, tests and measurements."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..runtime.policy import Policy
from .server import Server, Settings


@contextmanager
def serving(policy: Policy, settings: Settings | None = None) -> Iterator[str]:
    """Serve inside the block, by default on a free port; gives the address, `ws://host:port`.

    Raises:
        UserError: as `Server`.
    """
    server = Server(policy, settings or Settings(port=0))
    started, failure = threading.Event(), []
    port, stop = 0, lambda: None

    async def main() -> None:
        nonlocal stop
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        stop = lambda: loop.call_soon_threadsafe(event.set)  # noqa: E731

        def ready(found: int) -> None:
            nonlocal port
            port = found
            started.set()

        await server.run(ready, event)

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    started.wait()
    if failure:
        raise failure[0]
    try:
        yield f"ws://{server.settings.host}:{port}"
    finally:
        stop()
        thread.join()
