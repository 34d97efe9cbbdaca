"""Files that hold all that a policy needs, told apart by what is in them: one module per tool, one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .diffusion_policy import open_checkpoint
from .imported import Importable
from .lerobot import open_folder

LAYOUTS: tuple[Callable[[Path], Importable | None], ...] = (open_folder, open_checkpoint)
"""each opens its own tool's files and leaves the others alone"""


def recognise(path: Path) -> Importable | None:
    """What a file or folder holds; None where nothing is known of it, or where it does not exist.

    Raises:
        UserError: for one that is known and cannot be read.
    """
    return next((found for layout in LAYOUTS if (found := layout(path)) is not None), None)
