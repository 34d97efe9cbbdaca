"""Messages between a process and its workers: a JSON head and raw arrays, over pipes. Nothing is pickled.

On the wire: two little-endian lengths (head: 4 bytes, body: 8 bytes), the head, the body. The head lists the
arrays that the body holds one after the other as `[name, dtype, shape]`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from math import prod
from typing import Any

import numpy as np

LENGTHS = struct.Struct("<IQ")
KINDS = "biuf"
"""dtype kinds that may travel: bool, int, unsigned, float"""


@dataclass(frozen=True)
class Message:
    """What travels: JSON values and arrays."""

    head: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def send(stream: BufferedIOBase, message: Message) -> None:
    """Write one message."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise TypeError(f"array '{name}' of type {array.dtype} cannot travel")
    listing = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    head = json.dumps({**message.head, "arrays": listing}).encode()
    size = sum(array.nbytes for array in arrays.values())
    stream.write(b"".join((LENGTHS.pack(len(head), size), head, *(array.tobytes() for array in arrays.values()))))
    stream.flush()


def receive(stream: BufferedIOBase) -> Message | None:
    """Read one message; None if the other side is gone."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head_size, body_size = LENGTHS.unpack(lengths)
    raw_head, body = stream.read(head_size), bytearray(stream.read(body_size))
    if len(raw_head) < head_size or len(body) < body_size:
        return None
    head = json.loads(raw_head)
    arrays, offset = {}, 0
    for name, dtype, shape in head.pop("arrays"):
        arrays[name] = np.frombuffer(body, dtype, prod(shape), offset).reshape(shape)
        offset += arrays[name].nbytes
    return Message(head, arrays)
