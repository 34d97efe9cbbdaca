"""Optional mirrors of metrics.jsonl: TensorBoard and Weights & Biases. The file is the record."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from ..errors import UserError
from .run_folder import RunFolder

SinkName = Literal["tensorboard", "wandb"]
STEPS = ("env_steps", "grad_steps")
"""the first of these in a line is its step"""


@runtime_checkable
class Sink(Protocol):
    """Takes the dictionaries that go to metrics.jsonl."""

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Mirror one line."""
        ...

    def close(self) -> None:
        """Write out what is buffered."""
        ...


def open_sinks(names: Sequence[SinkName], run: RunFolder, *, since: int = 0) -> list[Sink]:
    """Open mirrors of a run.

    Args:
        names: which.
        run: the run, for its folder, name and configuration.
        since: step at which a resumed run continues; what TensorBoard holds beyond it is hidden.

    Raises:
        UserError: if a package is missing.
    """
    makers = {"tensorboard": lambda: TensorBoard(run, since), "wandb": lambda: Wandb(run)}
    return [makers[name]() for name in names]


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, run: RunFolder, since: int = 0) -> None:
        writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.writer = writer(str(run.path / "tensorboard"), purge_step=since or None)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Write every number as a scalar."""
        for key, value in _numbers(metrics).items():
            self.writer.add_scalar(key, value, _step(metrics))

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()


class Wandb:
    """A run of the project `noisepilot` under the run folder's name; WANDB_MODE=offline needs no account."""

    def __init__(self, run: RunFolder) -> None:
        self.run = _package("wandb", "wandb").init(
            project="noisepilot",
            name=run.path.resolve().name,
            dir=str(run.path),
            config=run.facts["config"],
        )

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Send every number."""
        self.run.log(_numbers(metrics), step=_step(metrics))

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"{extra} is not installed: pip install 'noisepilot[{extra}]'") from None


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in metrics.items() if v is not None and not isinstance(v, (str, bool))}


def _step(metrics: Mapping[str, Any]) -> int:
    return int(next((metrics[key] for key in STEPS if key in metrics), 0))
