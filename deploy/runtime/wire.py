"""Arrays in msgpack as openpi's client and server write them, read without trust.

An array is a map of four entries whose keys are byte strings: `__ndarray__` (true), `dtype` (numpy's short name, such
as `<f4`), `shape` and `data` (its bytes in C order). What is read is taken piece by piece: nothing is built before
its kind and size have been looked at, and what nobody asked for is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from .spec import PolicyError

DTYPES = {
    np.dtype(order + kind).str
    for order in "<>"
    for kind in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}
"""numbers without a tail: no objects, strings, records or complex ones"""
MOST_ENTRIES = 256
"""of one map"""
MOST_AXES = 8

TRUE = frozenset({0xC3})
TEXT = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB})
BYTES = frozenset({0xC4, 0xC5, 0xC6})
INTEGER = frozenset({*range(0x80), *range(0xCC, 0xD4), *range(0xE0, 0x100)})
LIST = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
MAP = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
"""first bytes of a value, by the msgpack specification"""


class WireError(PolicyError):
    """A message that cannot be read."""


def pack(message: Mapping[str, Any]) -> bytes:
    """A message of JSON values and arrays of numbers."""
    return msgpack().packb(message, default=_as_map)


def unpack_plain(frame: bytes) -> Any:
    """The JSON values of a whole message; arrays in it stay maps.

    Raises:
        WireError: if it is no msgpack.
    """
    try:
        return msgpack().unpackb(frame)
    except (ValueError, TypeError, OverflowError, msgpack().UnpackException) as error:
        raise WireError(f"the message is not msgpack ({type(error).__name__})") from None


class Reader:
    """Walks one message; every method moves past what it returns.

    Raises:
        WireError: whenever the message is not what is asked for.
    """

    def __init__(self, frame: bytes) -> None:
        self._frame = frame
        self._unpacker = msgpack().Unpacker(max_buffer_size=len(frame) or 1)
        self._unpacker.feed(frame)

    def entries(self) -> Iterator[str]:
        """The keys of a map. Take or skip each value before asking for the next key."""
        seen = set()
        for _ in range(self._count(MAP, MOST_ENTRIES, "map")):
            key = self.take(TEXT, "key")
            if key in seen:
                raise WireError(f"{key[:40]!r} comes twice")
            seen.add(key)
            yield key

    def array(self, what: str) -> np.ndarray:
        """An array, a view of its bytes."""
        fields: dict[bytes, Any] = {}
        for _ in range(self._count(MAP, 4, f"array for {what}")):
            key = self.take(BYTES, f"key inside {what}")
            if key not in _FIELDS or key in fields:
                raise WireError(f"{what} is no array as msgpack-numpy of openpi writes it")
            fields[key] = self._shape(what) if key == b"shape" else self.take(_FIELDS[key], f"entry of {what}")
        if len(fields) < len(_FIELDS):
            raise WireError(f"{what} is no array as msgpack-numpy of openpi writes it")
        dtype, shape, data = fields[b"dtype"], fields[b"shape"], fields[b"data"]
        if dtype not in DTYPES:
            raise WireError(f"{what} has dtype {dtype[:20]!r}: send numbers of at most 8 bytes")
        if prod(shape) * np.dtype(dtype).itemsize != len(data):
            raise WireError(f"{what} has {len(data)} bytes, not those of shape {shape} and dtype {dtype}")
        return np.frombuffer(data, dtype).reshape(shape)

    def take(self, kinds: frozenset[int], what: str) -> Any:
        """A value whose first byte is one of `kinds`."""
        self._look(kinds, what)
        return self._call("unpack")

    def skip(self) -> None:
        """Pass over a value of any kind without building it."""
        self._call("skip")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._unpacker.tell() != len(self._frame):
            raise WireError("bytes follow the message")

    def _shape(self, what: str) -> tuple[int, ...]:
        axes = self._count(LIST, MOST_AXES, f"shape for {what}")
        shape = tuple(self.take(INTEGER, f"length in the shape of {what}") for _ in range(axes))
        if any(length < 1 for length in shape):
            raise WireError(f"{what} has shape {shape}: empty")
        return shape

    def _count(self, kinds: frozenset[int], most: int, what: str) -> int:
        self._look(kinds, what)
        count = self._call("read_map_header" if kinds is MAP else "read_array_header")
        if count > most:
            raise WireError(f"a {what} has {count} entries, more than {most}")
        return count

    def _look(self, kinds: frozenset[int], what: str) -> None:
        place = self._unpacker.tell()
        if place >= len(self._frame) or self._frame[place] not in kinds:
            raise WireError(f"expected a {what} at byte {place}")

    def _call(self, method: str) -> Any:
        try:
            return getattr(self._unpacker, method)()
        except (ValueError, TypeError, OverflowError, RecursionError, msgpack().UnpackException) as error:
            raise WireError(f"the message is not msgpack ({type(error).__name__})") from None


def msgpack() -> Any:
    """The package, imported when it is first needed.

    Raises:
        PolicyError: if it is missing.
    """
    try:
        import msgpack as package
    except ImportError:
        raise PolicyError("msgpack is missing: pip install msgpack websockets") from None
    return package


_FIELDS = {b"__ndarray__": TRUE, b"data": BYTES, b"dtype": TEXT, b"shape": LIST}


def _as_map(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray) or value.dtype.str not in DTYPES:
        raise TypeError(f"a {getattr(value, 'dtype', type(value).__name__)} cannot travel")
    return {b"__ndarray__": True, b"dtype": value.dtype.str, b"shape": value.shape, b"data": value.tobytes()}
