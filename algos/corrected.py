"""An exported file under an overlay that corrects every step of its chunks, as an actor.

Shapes: B batch, T observations, N draws, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..policies.playback import Remembering
from ..policies.residual import plan
from ..shapes import Float
from .black_box import Exported


class Corrected(Remembering):
    """An actor that remembers: each row plays its own chunk of the base, corrected by the runtime step by step."""

    def __init__(self, base: Exported) -> None:
        self.base, self.digest = base, base.digest
        self.spec = replace(base.spec, horizon=1, n_action_steps=1)
        self.noise_shape, self.device = base.noise_shape, base.device

    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B N H A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B 1 A"]:
        """The next action of every row, physical; noise of rows that are not due is ignored.

        Raises:
            UserError: for observations that the overlay refuses.
        """
        from ..deploy.runtime.spec import PolicyError

        playback = self.playing(len(next(iter(obs.values()))), self.base.spec.n_action_steps)
        plan(self.base, playback, playback.due, obs, noise, generator)
        planned = playback.action()
        playback.advance()
        try:
            sent = self.base.player.correct({k: v.cpu().numpy() for k, v in obs.items()}, planned.numpy())
        except PolicyError as error:
            raise UserError(str(error)) from None
        return torch.from_numpy(sent)[:, None]


def deployed(path: str, *, token: str | None = None, overlay: str | Path | None = None) -> Exported | Corrected:
    """The actor in an exported file or behind an address, perhaps with an overlay on top.

    Raises:
        UserError: as `Exported`.
    """
    found = Exported(path, token=token, overlay=overlay)
    return Corrected(found) if found.player.corrects else found
