"""An actor on disk: a folder of `config.json` and `model.safetensors`. Loading needs nothing else.

An actor is a policy or something made of one (steered, residual, best of several). Its configuration is a dataclass
of this package whose `build(spec)` makes the module; all weights lie in the module's own state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from safetensors import SafetensorError

from ..config import from_dict, to_dict
from ..errors import UserError
from ..files import atomic_folder
from ..spec import PolicySpec
from .actor import Actor
from .normalizer import Normalizer
from .policy import Policy, PolicyConfig
from .sampler import Sampler

FORMAT = 1
CONFIG, WEIGHTS, CHECKPOINTS = "config.json", "model.safetensors", "checkpoints"


@runtime_checkable
class ActorConfig(Protocol):
    """A tagged dataclass that describes an actor."""

    def build(self, spec: PolicySpec) -> SavedActor:
        """The module, its weights not yet loaded."""
        ...


@runtime_checkable
class NamedActor(Actor, Protocol):
    """An actor that can be told from others."""

    config: Any
    """an `ActorConfig`, or what finds it again"""

    def hash(self) -> str:
        """Short fingerprint of weights and configuration."""
        ...


@runtime_checkable
class SavedActor(NamedActor, Protocol):
    """An actor that can be saved: a `torch.nn.Module` with its configuration and normaliser."""

    @property
    def normalizer(self) -> Normalizer:
        """Of the policy inside."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All weights and buffers."""
        ...


def save_policy(policy: SavedActor, folder: str | Path, provenance: dict[str, Any] | None = None) -> Path:
    """Write an actor; a folder that stands there is replaced in one step.

    Raises:
        UserError: if the normaliser was never fitted, or the folder cannot be written.
    """
    policy.normalizer.require_fitted()
    config = {
        "format": FORMAT,
        "config": to_dict(policy.config),
        "spec": to_dict(policy.spec),
        "provenance": provenance or {},
    }
    tensors = {name: value.contiguous() for name, value in policy.state_dict().items()}
    with atomic_folder(folder, replace=True) as new:
        (new / CONFIG).write_text(json.dumps(config, indent=1))
        # Not `save_file`, whose errors hide that a disk is full.
        (new / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    return Path(folder)


def find_policy(path: str | Path) -> Path:
    """The policy folder that a path means: itself, the one inside a checkpoint, or the newest of a run.

    Raises:
        UserError: for a run without a checkpoint.
    """
    path = Path(path)
    if (path / CHECKPOINTS).is_dir():
        steps = [p for p in (path / CHECKPOINTS).iterdir() if p.name.isdecimal()]
        if not steps:
            raise UserError(f"{path} has no checkpoint yet: let the run write one, or give a policy folder")
        path = max(steps, key=lambda p: int(p.name))
    return path / "policy" if (path / "policy").is_dir() else path


def load_policy(path: str | Path, device: str | torch.device | None = None) -> SavedActor:
    """Read an actor back, ready to act; of a run, its newest.

    Raises:
        UserError: if files are missing, corrupt, newer than this version, or lack a normaliser.
    """
    folder = find_policy(path)
    config = read_config(folder)
    try:
        module = from_dict(config["config"]).build(from_dict(config["spec"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} does not describe a policy ({error!r}): copy it again") from None
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        module.load_state_dict(tensors)
    except FileNotFoundError:
        raise UserError(f"{folder} has no {WEIGHTS}: copy the whole policy folder") from None
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is corrupt ({error}): copy it again or use another checkpoint") from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise UserError(f"{folder / WEIGHTS} does not fit its {CONFIG}: {' '.join(lines)}") from None
    module.normalizer.require_fitted()
    base = getattr(module, "base", None)
    if base is not None and not isinstance(base, torch.nn.Module):  # a file's policy cannot move, its adapter stays
        return module.to(base.device).eval()
    return module.to(device or default_device()).eval()


def load_plain_policy(path: str | Path, purpose: str, device: str | torch.device | None = None) -> Policy:
    """Read a policy whose inside is needed: to be tuned, distilled or exported.

    Args:
        path: as for `load_policy`.
        purpose: what it is wanted for, for the error: "fine-tuning starts from".
        device: None: the default one.

    Raises:
        UserError: as `load_policy`, and for an actor that is more than a policy.
    """
    actor = load_policy(path, device)
    if not isinstance(actor, Policy):
        raise UserError(
            f"{path} holds a {type(actor).__name__}, but {purpose} a plain policy: "
            "pre-train or distill one, or use the base it was made from"
        )
    return actor


def sampler_of(actor: NamedActor) -> Sampler | None:
    """The sampler of the policy inside; None if there is no policy inside."""
    config = actor.config
    while config is not None and not isinstance(config, PolicyConfig):
        config = getattr(config, "base", None)
    return config.sampler if config is not None else None


def data_hash(path: str | Path) -> str:
    """Hash of the demonstrations that a policy goes back to; empty if not known."""
    return read_config(find_policy(path)).get("provenance", {}).get("data_hash", "")


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `config.json` of a policy folder."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is not a policy: it has no {CONFIG}; give a policy folder or a run") from None
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} is not JSON ({error}): copy it again or use another checkpoint") from None
    if not isinstance(config, dict) or not {"format", "config", "spec"} <= config.keys():
        raise UserError(f"{folder / CONFIG} does not describe a policy: it needs format, config and spec")
    if not isinstance(config["format"], int) or config["format"] > FORMAT:
        raise UserError(f"{folder} was written in format {config['format']}, newer than {FORMAT}: update noisepilot")
    return config


def default_device() -> torch.device:
    """CUDA when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
