"""`noisepilot export ADAPTER --out policy.overlay`: an adapter alone, for the exported file that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .deploy_verbs import Export, history, provenance_of, recorded, say_certificate

if TYPE_CHECKING:
    from ..deploy.overlay import Adapter
    from ..deploy.runtime import Policy


def export_overlay(config: Export) -> int:
    """Write it; returns the exit code.

    Raises:
        UserError: for a source that is no adapter, another base, or options that are for whole policies.
    """
    from ..datasets.readers import load
    from ..deploy.overlay import adapter_of
    from ..deploy.overlay import export_overlay as write
    from ..deploy.runtime import Overlay
    from ..policies.storage import find_policy, load_policy
    from .ledger import Ledger

    if config.camera_size or config.precision != "float32" or config.eta is not None:
        raise UserError("--camera-size, --precision and --eta are for whole policies: leave them out for an overlay")
    folder = find_policy(config.source)
    adapter = adapter_of(load_policy(folder, device="cpu"), config.source)
    base, data = _base(config, adapter), load(config.data) if config.data else None
    out = write(
        adapter,
        config.out,
        base,
        observations=None if data is None else recorded(data, adapter),
        provenance=provenance_of(folder, data),
        evaluation=Ledger.load(config.eval).summary() if config.eval else None,
        history=history(config, folder),
    )
    overlay = Overlay.load(out)
    say_certificate(Path(out), overlay.metadata["parity"])
    print(f"a {overlay.kind} overlay for the file with SHA-256 {overlay.base[:12]}...")
    return 0


def _base(config: Export, adapter: Adapter) -> Policy:
    from ..algos.black_box import Exported

    if config.base:
        return Exported(config.base).player
    if isinstance(adapter.base, Exported):
        return adapter.base.player
    raise UserError(f"{config.source} was trained on a run: export that, and give the file with --base")
