"""A short name for weights and configuration together."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn


def fingerprint(module: nn.Module, config: Any) -> str:
    """Sixteen hexadecimal digits that change with any weight, buffer or field of `config`."""
    digest = hashlib.sha256(repr(config).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
