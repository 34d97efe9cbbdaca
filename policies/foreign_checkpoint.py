"""Checkpoints that others wrote with `torch.save`, read without running anything in them.

Such a file is a zip archive of raw storages and one pickle, and a pickle is a program: it names functions and calls
them. Here the only functions that answer rebuild tensors, dictionaries, sizes and bytes; whatever else is named, a
class or a function of any package, becomes an `Opaque` that records its name and what it was given. Bytes that hold
another pickle stay bytes.
"""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - the machine whose every way out is closed below
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import UserError

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


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """The dictionary that a checkpoint holds: nested containers, numbers, strings, bytes, CPU tensors and `Opaque`s.

    Tensors that shared memory share it again.

    Raises:
        UserError: for a file that is no checkpoint of torch 1.6 or later, is damaged, or claims more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Archive(archive, path.stat().st_size).load()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check the path") from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except zipfile.BadZipFile:
        raise UserError(
            f"{path} is no checkpoint of torch 1.6 or later, or a damaged one: copy it again, "
            "or save it anew with torch.save"
        ) from None
    except Exception as error:  # whatever a damaged or hostile program trips over
        what = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is damaged ({type(error).__name__}: {what}): copy it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a dictionary: give a checkpoint of a training")
    return found


class _Archive:
    """The storages of one file."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.entries = {entry.filename: entry for entry in archive.infolist()}
        if len(self.entries) < len(archive.infolist()):
            raise UserError("names an entry twice: it was not written by torch.save")
        packed = any(e.compress_type != zipfile.ZIP_STORED for e in self.entries.values())
        if packed or sum(e.file_size for e in self.entries.values()) > size:
            raise UserError("unpacks to more than its size: torch.save does not compress; copy it again")
        programs = [name for name in self.entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise UserError("holds no data.pkl: it was not written by torch.save, or by a torch older than 1.6")
        self.root = programs[0].partition("/")[0]
        if f"{self.root}/byteorder" in self.entries and self._read("byteorder") != b"little":
            raise UserError("was written on a big-endian machine: save it anew on another")
        self.storages: dict[str, Tensor] = {}

    def load(self) -> Any:
        """Run the program, with nothing in its reach."""
        with self.archive.open(f"{self.root}/data.pkl") as program:
            return _Unpickler(program, self.storage).load()

    def storage(self, identity: Any) -> Tensor:
        """One storage as bytes; `identity` is what the program says of it."""
        kind, dtype, key, _, _ = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or f"{self.root}/data/{key}" not in self.entries:
            raise UserError(f"lacks the storage {str(key)[:40]!r}: copy it again")
        if key not in self.storages:
            content = bytearray(self._read(f"data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0).byte()
        whole = self.storages[key]
        return whole[: len(whole) // dtype.itemsize * dtype.itemsize].view(dtype)

    def _read(self, name: str) -> bytes:
        return self.archive.read(f"{self.root}/{name}")


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Python's own, not C's: there a number in the program chooses how much memory is taken."""

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
        if path in _MEANINGS:
            return _MEANINGS[path]
        if path not in self.classes:
            self.classes[path] = type("Opaque", (Opaque,), {"path": path})
        return self.classes[path]

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Opaque):  # for all others it would be attributes
            target.state = state

    def _refuse(self) -> None:
        raise UserError("is written in a way that torch.save does not write")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportAttributeAccessIssue]
        pickle.BUILD[0]: _build,
        **dict.fromkeys(
            (code[0] for code in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)), _refuse
        ),
    }


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if len(size) > MOST_DIMS or math.prod(size) > storage.numel():
        raise UserError("holds a tensor with more numbers than are stored: save it anew, with .contiguous()")
    return torch.as_strided(storage, size, stride, offset)


def _typed_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    _, _, dtype, *_ = rest
    return _tensor(storage.view(dtype), offset, size, stride)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _bytes(text: str = "", _coding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _mapping(pairs: Any = ()) -> Mapping:
    return Mapping(pairs)


_MEANINGS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _mapping,
    "torch.Size": tuple,
    "_codecs.encode": _bytes,
    "__builtin__.bytes": _bytes,
    "builtins.bytes": _bytes,
}
