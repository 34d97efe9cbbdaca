"""The state of a training on disk: nested mappings of tensors and JSON values; no pickle.

Tensors go to `state.safetensors` under their path, everything else to `state.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..config import to_dict
from ..errors import UserError
from ..files import atomic_folder, is_empty, sweep
from ..policies.storage import SavedActor, save_policy
from .run_folder import RunFolder, provenance

Tree = dict[str, Any]
_TENSOR, _ARRAY = "tensor:", "array:"
SPEECH = {"eval_every", "offline_eval_every", "log_every", "checkpoint_every", "loggers"}
FREE = SPEECH | {"out", "resume", "data", "token_file", "iterations", "wall_s"}
"""settings that a resumed run may change: where things lie, how long it runs, how often it speaks"""


def save_state(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree into an existing folder (make it whole with `files.atomic_folder`)."""
    tensors: dict[str, Tensor] = {}
    values = _split(tree, "", tensors)
    (folder / "state.safetensors").write_bytes(safetensors.torch.save(tensors))
    (folder / "state.json").write_text(json.dumps(values))


def load_state(folder: Path) -> Tree:
    """Read a tree back; tensors on the CPU, arrays as numpy.

    Raises:
        UserError: if a file is missing or corrupt, or a part of the state is missing.
    """
    try:
        tensors = safetensors.torch.load_file(folder / "state.safetensors")
        values = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"training state {folder} cannot be read ({error}): start the run anew with another --out"
        ) from None
    try:
        return _join(values, tensors)
    except KeyError as error:
        raise UserError(f"training state {folder} lacks {error}: start the run anew with another --out") from None


def optimizer_state(optimizer: torch.optim.Optimizer) -> Tree:
    """An optimiser's state as a tree; parameters are numbered in their order."""
    return {"state": {str(k): v for k, v in optimizer.state_dict()["state"].items()}}


def load_optimizer_state(optimizer: torch.optim.Optimizer, tree: Tree) -> None:
    """Restore what `optimizer_state` wrote; hyperparameters stay those of the new optimiser."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": {int(k): v for k, v in tree["state"].items()}, "param_groups": groups})


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().contiguous().clone()
        return _TENSOR + path
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
        return _ARRAY + path
    if isinstance(value, Mapping):
        return {str(k): _split(v, f"{path}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        return {k: _join(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return [_join(v, tensors) for v in value]
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, str) and value.startswith(_ARRAY):
        return tensors[value.removeprefix(_ARRAY)].numpy()
    return value


def write_checkpoint(run: RunFolder, step: int, policy: SavedActor, state: Mapping[str, Any]) -> Path:
    """Save a policy and the training state in one atomic folder; older training states are let go."""
    older = run.checkpoints()
    with atomic_folder(run.checkpoint_path(step), replace=True) as new:
        save_policy(policy, new / "policy", {"step": step, "data_hash": run.facts["data_hash"], **provenance()})
        (new / "training_state").mkdir()
        save_state(new / "training_state", state)
    for folder in older:
        shutil.rmtree(folder / "training_state", ignore_errors=True)
    return run.checkpoint_path(step)


def resume(config: Any, data_hash: str = "") -> tuple[RunFolder | None, Tree | None]:
    """The run that `config` continues, None for a new one, and its newest training state, None before the first.

    Raises:
        UserError: if `config.out` is no run, or one with other settings or data.
    """
    if not config.resume or is_empty(Path(config.out)):
        return None, None
    run = RunFolder.open(config.out)
    require_same(run, config, data_hash)
    sweep(run.path)
    newest = run.latest_checkpoint()
    if newest is None:
        run.truncate_metrics(-1)
        return run, None
    run.eval_path("final").unlink(missing_ok=True)  # it measured what is about to change
    return run, load_state(newest / "training_state")


def require_same(run: RunFolder, config: Any, data_hash: str) -> None:
    """Refuse to continue a run with other data or settings than it was begun with.

    Raises:
        UserError: naming the first that differs.
    """
    facts = run.facts
    if facts["data_hash"] != data_hash:
        raise UserError(f"{run.path} was trained on other data (hash differs): resume with the same --data")
    begun, now = _settings(facts["config"]), _settings(to_dict(config))
    if bool(begun.get("data")) != bool(now.get("data")):
        how = "with" if begun.get("data") else "without"
        raise UserError(f"{run.path} was begun {how} --data: resume with the same settings, or give another --out")
    for name in sorted(begun.keys() | now.keys(), key=_weight):
        if begun.get(name) != now.get(name) and name.rpartition(".")[2] not in FREE:
            raise UserError(
                f"{run.path} was begun with {name} {begun.get(name)}, not {now.get(name)}: "
                "resume with the same settings, or give another --out"
            )


def _weight(name: str) -> tuple[bool, int, str]:
    """What a part is tells more than what it is made of, which then differs too."""
    return name.rpartition(".")[2] != "type", name.count("."), name


def _settings(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a configuration by its dotted name."""
    if not isinstance(value, dict):
        return {path: value}
    named = [(f"{path}.{key}" if path else key, inner) for key, inner in value.items()]
    return {name: leaf for key, inner in named for name, leaf in _settings(inner, key).items()}
