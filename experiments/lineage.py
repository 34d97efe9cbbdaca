"""Which training made a policy, of which policy before it: from run folders, for what is exported."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..policies.storage import WEIGHTS, find_policy, read_config
from .run_folder import RunFolder

PATHS = ("data", "out", "policy")
"""settings that are paths; their last part is kept, the rest names a machine"""


def training(policy: Path) -> dict[str, Any] | None:
    """What trained the policy in a folder: `method` (`pretrain`, `finetune`, `distill`, ...), `data_hash` and `config`.

    None if the folder is in no run.
    """
    run = _run(policy)
    if run is None:
        return None
    config = _settings(run)
    named = {name: Path(config[name]).name for name in PATHS if isinstance(config.get(name), str) and config[name]}
    kind = str(config.get("type", "")).partition(":")[0].rpartition(".")[2]
    return {"method": kind, "data_hash": run.facts.get("data_hash", ""), "config": {**config, **named}}


def parent(policy: Path) -> dict[str, Any] | None:
    """What the policy in a folder was fine-tuned or distilled from, as it lies there now, with its own parent inside.

    `name`, and where it is still found `weights_sha256`, `training` and `parent`; None if it began with nothing.
    """
    run = _run(policy)
    before = "" if run is None else _settings(run).get("policy")
    if run is None or not isinstance(before, str) or not before:
        return None
    facts: dict[str, Any] = {"name": Path(before).name}
    for folder in (Path(before), run.path.parent / before):
        try:
            found = find_policy(folder)
            read_config(found)
        except UserError:
            continue
        return facts | {"weights_sha256": weights_hash(found), "training": training(found), "parent": parent(found)}
    return facts


def weights_hash(policy: Path) -> str:
    """SHA-256 of a policy folder's weights."""
    return hashlib.sha256((policy / WEIGHTS).read_bytes()).hexdigest()


def _run(policy: Path) -> RunFolder | None:
    # RUN/checkpoints/STEP/policy
    above = policy.absolute().parents
    if policy.name != "policy" or len(above) < 3 or above[1].name != "checkpoints":
        return None
    return RunFolder(above[2]) if (above[2] / "config.json").is_file() else None


def _settings(run: RunFolder) -> dict[str, Any]:
    config = run.facts.get("config")
    return config if isinstance(config, dict) else {}
