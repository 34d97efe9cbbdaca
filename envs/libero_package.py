"""What LIBERO's package brings: its tasks, their initial states, and an import that asks nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import tempfile
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

LARGEST = 1 << 24
"""bytes of the content of a file of initial states, at most"""
FRAME = re.compile(
    rb"\x80\x02cnumpy\.core\.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02"
    rb"c_codecs\nencode\nq\x03X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\t"
    rb"\(K\x01K(?P<rows>.)K(?P<columns>.)\x86q\ncnumpy\ndtype\nq\x0bX\x02\x00\x00\x00f8q\x0c\x89\x88\x87q\rRq\x0e"
    rb"\(K\x03X\x01\x00\x00\x00<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89"
    rb"h\x03X(?P<length>....)(?P<text>.*)q\x11h\x05\x86q\x12Rq\x13tq\x14b\.",
    re.DOTALL,
)
"""one array of doubles (rows, columns) as torch and pickle write it; its bytes are UTF-8 of Latin-1"""


def package() -> Path:
    """The folder `libero/libero`, found without importing it."""
    found = find_spec("libero")
    if found is None or not found.submodule_search_locations:
        raise UserError("libero is not installed here: noisepilot envs install libero")
    return Path(next(iter(found.submodule_search_locations))) / "libero"


def task_name(root: Path, suite: str, number: int) -> str:
    """What LIBERO calls a task, in its own order."""
    module = ast.parse((root / "benchmark" / "libero_suite_task_map.py").read_text())
    tables = [node.value for node in module.body if isinstance(node, ast.Assign)]
    return ast.literal_eval(tables[0])[suite][number]


def instruction(name: str) -> str:
    """The sentence inside a task's name, without its scene."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")


def initial_states(root: Path, suite: str, name: str) -> np.ndarray:
    """The fixed states (I, Q) that a task's episodes start from."""
    return read_states(root / "init_files" / suite / f"{name}.pruned_init")


def read_states(path: Path) -> np.ndarray:
    """One array (I, Q) from a file that torch wrote; nothing is unpickled: it must be that array byte for byte.

    Raises:
        UserError: for any other content.
    """
    with zipfile.ZipFile(path) as archive:
        inside = archive.getinfo("archive/data.pkl")
        content = archive.read(inside) if inside.file_size <= LARGEST else b""
    try:
        found = FRAME.fullmatch(content)
        if found is None or int.from_bytes(found["length"], "little") != len(found["text"]):
            raise ValueError("another frame")
        values = np.frombuffer(found["text"].decode().encode("latin1"), "<f8")
        return values.reshape(found["rows"][0], found["columns"][0])
    except ValueError as error:
        raise UserError(f"{path} is no plain array of numbers, so it is not read") from error


def simulators(assets: Path) -> Any:
    """LIBERO's simulators by the name of their scene's kind; its first import would ask about folders otherwise."""
    root = package()
    keys = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets", "assets": "assets"}
    before = os.environ.get("LIBERO_CONFIG_PATH")
    with tempfile.TemporaryDirectory() as folder:
        config = {"benchmark_root": str(root), **{key: str(root / name) for key, name in keys.items()}}
        Path(folder, "config.yaml").write_text(json.dumps(config))
        os.environ["LIBERO_CONFIG_PATH"] = folder
        try:
            vars(import_module("libero.libero"))["_assets_path_cache"] = str(assets)  # it would look on a hub
            return import_module("libero.libero.envs").TASK_MAPPING
        finally:
            del os.environ["LIBERO_CONFIG_PATH"]
            if before is not None:
                os.environ["LIBERO_CONFIG_PATH"] = before
