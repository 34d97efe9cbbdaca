"""Settings of diffusers' noise schedulers as a path and a sampler of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import UserError
from ..path import CosinePath, Predicts
from ..sampler import Sampler

PREDICTS: dict[str, Predicts] = {"epsilon": "eps", "sample": "data"}
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "beta_schedule": ("squaredcos_cap_v2",),
    "prediction_type": tuple(PREDICTS),
    "variance_type": ("fixed_small", "fixed_small_log"),
    "trained_betas": (None,),
    "thresholding": (False,),
    "timestep_spacing": ("leading",),
    "steps_offset": (0,),
    "set_alpha_to_one": (True,),
    "rescale_betas_zero_snr": (False,),
}
"""what our path and transitions are equal to; settings that are not given are the first, or"""
UNSAID = {"beta_schedule": "linear"}
"""what diffusers takes where nothing is said"""
DIFFERS = (
    "differs: where DDIM clips an action, the original goes on with the network's noise, this policy with the noise "
    "that the clipped action implies"
)
"""said of what `keeps_eps`"""


def diffusion(
    kind: str, settings: Mapping[str, Any], steps: int | None, eta: float = 0.0
) -> tuple[CosinePath, Sampler, Predicts]:
    """What a scheduler walks, how, and what its network predicts.

    Args:
        kind: DDPM or DDIM.
        settings: it was made with.
        steps: at inference; None: all that were trained.
        eta: of DDIM.

    Raises:
        UserError: for a setting that would walk otherwise.
    """
    if kind not in ("DDPM", "DDIM"):
        raise UserError(f"walks by a {kind} scheduler: DDPM and DDIM are imported")
    for name, values in SUPPORTED.items():
        value = settings.get(name, UNSAID.get(name, values[0]))
        if value not in values:
            raise UserError(
                f"was trained with the noise scheduler's {name} {value!r}, which has no equal here: only "
                f"{' or '.join(repr(value) for value in values)} is imported"
            )
    levels = settings.get("num_train_timesteps")
    if type(levels) is not int:
        raise UserError(f"does not say how many diffusion steps it was trained with, but {levels!r}: give another file")
    clip = float(settings.get("clip_sample_range", 1.0)) if settings.get("clip_sample", True) else None
    sampler = Sampler(steps or levels, 1.0 if kind == "DDPM" else eta, clip, noise_clip=math.inf)
    return CosinePath(levels), sampler, PREDICTS[settings.get("prediction_type", "epsilon")]


def keeps_eps(kind: str, sampler: Sampler) -> bool:
    """The original's DDIM goes on with the network's noise where it has clipped the action; ours recomputes it."""
    return kind == "DDIM" and sampler.clip_data is not None
