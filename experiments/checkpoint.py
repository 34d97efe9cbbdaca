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

from ..errors import UserError
from ..files import atomic_folder
from ..policies.policy import Policy
from ..policies.storage import save_policy
from .run_folder import RunFolder, provenance

Tree = dict[str, Any]
_TENSOR, _ARRAY = "tensor:", "array:"


def save_state(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree into an existing folder (make it whole with `files.atomic_folder`)."""
    tensors: dict[str, Tensor] = {}
    values = _split(tree, "", tensors)
    safetensors.torch.save_file(tensors, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(values))


def load_state(folder: Path) -> Tree:
    """Read a tree back; tensors on the CPU, arrays as numpy.

    Raises:
        UserError: if a file is missing or corrupt.
    """
    try:
        tensors = safetensors.torch.load_file(folder / "state.safetensors")
        values = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"checkpoint {folder} cannot be read ({error}): resume from an earlier one") from None
    return _join(values, tensors)


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


def write_checkpoint(run: RunFolder, step: int, policy: Policy, state: Mapping[str, Any]) -> Path:
    """Save a policy and the training state in one atomic folder; older training states are let go."""
    older = run.checkpoints()
    with atomic_folder(run.checkpoint_path(step), replace=True) as new:
        save_policy(policy, new / "policy", {"step": step, **provenance()})
        (new / "training_state").mkdir()
        save_state(new / "training_state", state)
    for folder in older:
        shutil.rmtree(folder / "training_state", ignore_errors=True)
    return run.checkpoint_path(step)


def resume_state(run: RunFolder) -> Tree:
    """The training state of the newest checkpoint.

    Raises:
        UserError: if the run has none.
    """
    folder = run.latest_checkpoint()
    if folder is None:
        raise UserError(f"{run.path} has no checkpoint to resume from: start it anew with another --out")
    return load_state(folder / "training_state")


def policy_folder(path: str | Path) -> Path:
    """The policy that a path means: a policy folder itself, or the newest checkpoint of a run."""
    path = Path(path)
    if (path / "checkpoints").is_dir():
        newest = RunFolder(path).latest_checkpoint()
        if newest is None:
            raise UserError(f"run {path} has no checkpoint yet")
        return newest / "policy"
    return path / "policy" if (path / "policy").is_dir() else path
