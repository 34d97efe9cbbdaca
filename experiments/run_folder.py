"""A run on disk: its configuration, what it was run with, its metrics, checkpoints and evaluations.

    config.json                              resolved configuration, versions, git revision, data hash
    metrics.jsonl                            one JSON object per line, keys in Stable-Baselines3's dialect
    checkpoints/<step>/{policy,training_state}
    eval/<name>.json                         ledgers
    pictures.json, report.html

Every metrics line counts `env_steps`, `grad_steps` and `wall_s`, as far as the run has them.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import from_dict, to_dict
from ..errors import UserError
from ..files import append_line, atomic_write, is_empty, sweep
from .ledger import Ledger, read_json

PACKAGES = ("noisepilot", "torch", "numpy", "gymnasium", "mujoco", "safetensors", "zarr")


class RunFolder:
    """Access to the files of one run; holds nothing but the path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: Any, *, data_hash: str = "") -> RunFolder:
        """Start a run: write `config` (a dataclass) and what it runs with.

        Raises:
            UserError: if the folder exists and holds anything.
        """
        run = cls(path)
        if not is_empty(run.path):
            raise UserError(f"{run.path} exists: give another --out (pretrain and finetune continue it with --resume)")
        sweep(run.path)
        facts = {"config": to_dict(config), "data_hash": data_hash} | provenance()
        atomic_write(run.path / "config.json", json.dumps(facts, indent=2) + "\n")
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A run that exists.

        Raises:
            UserError: if `path` is no run folder.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            raise UserError(f"{run.path} is no run folder (no config.json): check the path")
        return run

    @property
    def facts(self) -> dict[str, Any]:
        """All of config.json: `config`, `data_hash`, `git`, `versions`, `python`, `platform`."""
        return read_json(self.path / "config.json")

    @property
    def config(self) -> Any:
        """The configuration that started the run, as the dataclass it was."""
        return from_dict(self.facts["config"])

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one line; numbers of numpy or torch become plain ones, what is not finite becomes null."""
        append_line(self.metrics_path, json.dumps({k: _plain(v) for k, v in metrics.items()}))

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl; absent before the first line."""
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines. A last line cut short by a kill is left out."""
        return [json.loads(line) for line in self._lines()]

    def truncate_metrics(self, until: int, *, key: str = "env_steps") -> None:
        """Forget what followed a checkpoint: everything from the first line whose `key` exceeds `until`."""
        kept = []
        for line in self._lines():
            if (json.loads(line).get(key) or 0) > until:
                break
            kept.append(line + "\n")
        atomic_write(self.metrics_path, "".join(kept))

    def checkpoint_path(self, step: int) -> Path:
        """Folder of the checkpoint at `step`, padded so that names sort; it need not exist."""
        return self.path / "checkpoints" / f"{step:09d}"

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, the oldest first."""
        folder = self.path / "checkpoints"
        names = [p for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []
        return sorted(names, key=lambda p: int(p.name))

    def latest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint; None before the first."""
        return next(reversed(self.checkpoints()), None)

    def eval_path(self, name: str) -> Path:
        """Where the ledger `name` lies."""
        return self.path / "eval" / f"{name}.json"

    def ledgers(self) -> dict[str, Ledger]:
        """All evaluations of the run by name, sorted."""
        return {p.stem: Ledger.load(p) for p in sorted((self.path / "eval").glob("*.json"))}

    def _lines(self) -> list[str]:
        if not self.metrics_path.is_file():
            return []
        # What follows the last line end is a line that a kill cut short.
        return self.metrics_path.read_text().split("\n")[:-1]


def provenance() -> dict[str, Any]:
    """What the run runs with: revision, versions, platform. Nothing that names the machine or its user."""
    return {
        "git": git_revision(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def git_revision() -> str:
    """Revision of this package's own checkout, `+changes` if edited; empty if it is not a checkout."""
    root = Path(__file__).resolve().parent.parent
    if shutil.which("git") is None or not (root / ".git").exists():
        return ""
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    revision = _git(root, "rev-parse", "HEAD")
    return revision + ("+changes" if revision and changes else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = value.item() if not isinstance(value, float) else value
    return None if isinstance(number, float) and not math.isfinite(number) else number
