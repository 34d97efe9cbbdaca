"""Pickles of others, read without running anything in them.

A pickle is a program for a small machine: it names functions, calls them and fills containers. Here the only functions
that answer rebuild tensors, dictionaries, sizes and bytes; whatever else is named, a class or a function of any
package, becomes an `Opaque` that records its name and what it was given. Bytes that hold another pickle stay bytes.
"""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - the machine whose every way out is closed here
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import UserError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
MOST_DIMS = 16
Step = Callable[[Any], None]
"""of the machine"""
STEPS: dict[int, Step] = pickle._Unpickler.dispatch  # pyright: ignore[reportAttributeAccessIssue]
FILLING = (
    (pickle.APPEND[0], list, 2),
    (pickle.SETITEM[0], dict, 3),
    (pickle.APPENDS[0], list, 0),
    (pickle.SETITEMS[0], dict, 0),
    (pickle.ADDITEMS[0], set, 0),
)
"""steps that fill a container, which, and how far from the top it lies (0: at the top of the stack below)"""
REFUSED = (pickle.INST[0], pickle.OBJ[0], pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0])
"""steps that torch.save never writes"""


class Opaque:
    """What stands for an object of a class that is not rebuilt."""

    path: str = ""
    """the class's or function's full name"""
    args: tuple[Any, ...]
    """what it would have been made of"""
    state: Any
    """what would have been restored"""
    items: list[Any]
    """what would have been put into it"""

    def __new__(cls, *args: Any, **_: Any) -> Opaque:
        """Record the arguments."""
        new = super().__new__(cls)
        new.args, new.state, new.items = args, None, []
        return new

    def __repr__(self) -> str:
        return f"<{self.path}, not rebuilt>"

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """Record an element."""
        self.items.append(value)

    add = append


class Mapping(dict[Any, Any]):
    """An ordered dictionary; attributes that come with it are dropped."""


def _checked(code: int, kind: type, depth: int) -> Step:
    """The machine's own step, for that container alone: a tensor, too, has an `add`."""

    def step(machine: Any) -> None:
        target = machine.stack[-depth] if depth else machine.metastack[-1][-1]
        if not isinstance(target, (kind, Opaque)):
            raise UserError(f"fills a {type(target).__name__}: it was not written by torch.save")
        STEPS[code](machine)

    return step


def _build(machine: Any) -> None:
    """State is recorded; others than an Opaque would get it as attributes."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Opaque):
        target.state = state


def _refuse(machine: Any) -> None:
    raise UserError("is written in a way that torch.save does not write")


class Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Python's own, not C's: there a number in the program chooses how much memory is taken.

    Args:
        program: the file.
        storage: what stands for an identity that the program gives (kind, dtype, key, device, length).
    """

    dispatch: ClassVar[dict[int, Step]] = {
        **STEPS,
        pickle.BUILD[0]: _build,
        **{code: _checked(code, kind, depth) for code, kind, depth in FILLING},
        **dict.fromkeys(REFUSED, _refuse),
    }

    def __init__(self, program: Any, storage: Callable[[Any], Tensor]) -> None:
        super().__init__(program)
        self.storage = storage
        self.classes: dict[str, type[Opaque]] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        """Storages lie beside the program."""
        return self.storage(pid)

    def find_class(self, module: str, name: str) -> Any:
        """What a name means: a function of the few below, a number's type, or nothing that does anything."""
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        path = f"{module}.{name}"
        if path in MEANINGS:
            return MEANINGS[path]
        if path not in self.classes:
            self.classes[path] = type("Opaque", (Opaque,), {"path": path})
        return self.classes[path]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if len(size) > MOST_DIMS or math.prod(size) > storage.numel():
        raise UserError("holds a tensor with more numbers than are stored: save it anew, with .contiguous()")
    return torch.as_strided(storage, size, stride, offset)


def _typed_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    _, _, dtype, *_ = rest
    return _tensor(storage.view(dtype), offset, size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _bytes(text: str = "", _coding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _size(values: Any = ()) -> tuple[Any, ...]:
    return tuple(_plain(values))


def _mapping(pairs: Any = ()) -> Mapping:
    return Mapping(_plain(pairs))


def _plain(values: Any) -> Any:
    if not isinstance(values, (tuple, list, dict)):
        raise UserError(f"makes a container of a {type(values).__name__}: it was not written by torch.save")
    return values


MEANINGS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _mapping,
    "torch.Size": _size,
    "_codecs.encode": _bytes,
    "__builtin__.bytes": _bytes,
    "builtins.bytes": _bytes,
}
