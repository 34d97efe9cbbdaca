"""Moved to the root: `noisepilot.files`."""

from ..files import append_line, atomic_folder, atomic_write, naming, refuse_existing, sync

__all__ = ["append_line", "atomic_folder", "atomic_write", "naming", "refuse_existing", "sync"]
