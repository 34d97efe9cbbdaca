"""The verb `serve`: an exported policy behind a websocket; imports no torch."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..errors import UserError
from .cli import parse

if TYPE_CHECKING:
    from ..deploy.runtime import Policy
    from ..deploy.server import Server

SUFFIXES = (".onnx", ".npz")


@dataclass(frozen=True)
class Serve:
    """Serve an exported policy to robots, by openpi's websocket protocol."""

    policy: tyro.conf.Positional[Path]
    """file written by `noisepilot export`"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 is every network this machine is in"""
    port: int = 8000
    """0: a free one"""
    token_file: Path | None = None
    """file with a word that clients must send"""
    max_batch: int = 16
    """observations per call of the policy, from one or several clients"""
    max_clients: int = 64
    idle_s: float = 600.0
    """a client that sends nothing for so long is sent away"""
    overlay: Path | None = None
    """adapter on top of the file, written by `noisepilot export` too"""


def serve(argv: Sequence[str]) -> int:
    """`noisepilot serve POLICY [--host --port --token-file]`; returns the exit code once it was told to stop."""
    config = parse(Serve, argv, "noisepilot serve")
    if config.policy.suffix not in SUFFIXES:  # a .pt2 file runs code of its author
        raise UserError(f"cannot serve {config.policy}: only {' and '.join(SUFFIXES)} files, by `noisepilot export`")
    from ..deploy.runtime import PolicyError
    from ..deploy.server import Server, Settings

    token = read_token(config.token_file)
    limits = {"max_batch": config.max_batch, "max_clients": config.max_clients, "idle_s": config.idle_s}
    settings = Settings(config.host, config.port, token, **limits)
    try:
        server = Server(_loaded(config), settings)
    except PolicyError as error:
        raise UserError(str(error)) from None
    if token is None and not _is_local(config.host):
        print(f"warning: who reaches {config.host} may use the policy: give --token-file", file=sys.stderr)
    asyncio.run(_until_told(server, config))
    return 0


def _loaded(config: Serve) -> Policy:
    from ..deploy.runtime import Policy

    policy = Policy.load(config.policy, overlay=config.overlay)
    if policy.corrects:
        raise UserError(
            f"{config.overlay} corrects every step of a chunk, and a server makes whole chunks: serve {config.policy} "
            "alone, and give the overlay to `noisepilot run`"
        )
    return policy


def is_deployed(policy: str) -> bool:
    """Whether this names an exported file or a server, not a folder."""
    from ..deploy.runtime.remote import is_address

    return is_address(policy) or Path(policy).suffix in SUFFIXES


def read_token(path: Path | None) -> str | None:
    """The word in a file; None without a file.

    Raises:
        UserError: if it cannot be read, or holds no single word.
    """
    if path is None:
        return None
    try:
        words = path.read_text().split()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the token in {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(words) != 1 or not words[0].isascii():
        raise UserError(f"{path} holds {len(words)} words: write one, of ASCII letters, as token")
    return words[0]


async def _until_told(server: Server, config: Serve) -> None:
    stop = asyncio.Event()
    with suppress(NotImplementedError):  # where the system has no such signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    facts = f"at most {config.max_batch} observations a call, {config.max_clients} clients"

    def ready(port: int) -> None:
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"{config.policy} at ws://{host}:{port} ({facts}); Ctrl-C stops", flush=True)

    await server.run(ready, stop)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
