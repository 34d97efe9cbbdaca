"""Weights of Diffusion Policy's `TransformerForDiffusion` under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_NAMES = (
    (r"^input_emb\.", "embed."),
    (r"^cond_obs_emb\.", "condition.embed."),
    (r"^encoder\.(\d+)\.", r"condition.encoder.\1."),
    (r"^ln_f\.", "norm."),
    (r"^decoder\.layers\.", "blocks."),
    (r"\.self_attn\.", ".attention."),
    (r"\.multihead_attn\.", ".cross."),
    (r"\.in_proj_", ".project."),
    (r"\.out_proj\.", ".out."),
    (r"\.linear1\.", ".mlp.0."),
    (r"\.linear2\.", ".mlp.3."),
    (r"\.norm1\.", ".norm."),
    (r"\.norm3\.", ".mlp_norm."),
)
_CONSTANTS = {"mask", "memory_mask", "_dummy_variable"}
"""kept by the official code, known without it"""


def rename_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of our network from an official one; what is not known keeps its name, so that loading refuses it.

    Without `cond_pos_emb` the official network is one sequence, whose first position is the time's.
    """
    sequence = "cond_pos_emb" not in state
    found = {_rename(name, sequence): value for name, value in state.items() if name not in _CONSTANTS}
    for name in ("position", "condition.position"):
        if name in found:
            found[name] = found[name].squeeze(0)
    if sequence and "position" in found:
        found["condition.position"], found["position"] = found["position"][:1], found["position"][1:]
    return found


def _rename(name: str, sequence: bool) -> str:
    if name in ("pos_emb", "cond_pos_emb"):
        return "condition.position" if name.startswith("cond") else "position"
    name = name.replace("encoder.layers.", "decoder.layers." if sequence else "condition.encoder.")
    crosses = name.startswith("decoder.") and not sequence
    name = name.replace(".norm2.", ".cross_norm." if crosses else ".mlp_norm.")
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name
