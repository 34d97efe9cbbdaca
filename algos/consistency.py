"""Consistency distillation along the teacher's own chain, to its end or to any of its times.

Song et al. 2023 (https://arxiv.org/abs/2303.01469): what a student makes of a latent and of a later one that the
teacher's steps lead to shall be the same action. With a target time (CTM, Kim et al. 2023; Consistency Policy, Prasad
et al. 2024, https://arxiv.org/abs/2405.07503) they meet at any later latent, so the student takes one step or several.

Latents are those of the chains that the teacher walks, not noised actions: a policy tuned by RL is right about its
own chain alone. The k-th of K transitions starts at t = k / K of the student's linear path. On a diffusion path
latents keep their scale: what lies between the ends is a label that only the student reads. Shapes: B batch, K steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError, at_least, positive
from ..policies.networks import Network
from ..policies.objective import Consistency, Shortcut
from ..policies.policy import Context, Policy, PolicyConfig
from ..shapes import Float, Int
from .bc import BCState
from .students import Lesson, OnItsOwn, bounded, straight


@dataclass(frozen=True)
class ConsistencyDistillation(OnItsOwn):
    """A velocity network whose steps from two latents of the teacher's chain end at the same place."""

    until: Literal["end", "any"] = "end"
    """any: at a later time of the chain that is drawn, which the network sees (CTM)"""
    steps: int = 1
    """denoising steps of the student; more than one need until 'any' and divide the teacher's"""
    huber: float = 0.03
    """scale of the pseudo-Huber distance"""

    def __post_init__(self) -> None:
        at_least(1, self, "steps")
        positive(self, "huber")
        if self.steps > 1 and self.until == "end":
            raise UserError(f"a student that jumps to the end takes one step, not {self.steps}: set until to any")

    def config(self, teacher: PolicyConfig, network: Network) -> PolicyConfig:
        """One step, or steps between times of the chain: a network of average velocities, as shortcut policies have."""
        taught = teacher.sampler.steps
        if taught % self.steps:
            raise UserError(f"steps {self.steps} must divide the teacher's {taught}, whose latents it is taught")
        jumps = self.until == "any"
        sampler = bounded(teacher, self.steps)
        return replace(
            straight(teacher, replace(network, step_size=jumps), "velocity"),
            objective=Shortcut() if jumps else Consistency(taught, self.huber),
            sampler=sampler if self.steps == 1 else replace(sampler, clip_data=None),
        )

    def lesson(self, state: BCState, teacher: Policy, seen: Context, generator: torch.Generator) -> Lesson:
        """Two latents of each chain, and where they meet: any later one may teach, for the chain is there (CTM)."""
        rows, taught = len(seen.features), teacher.config.sampler.steps
        with torch.no_grad():
            chain = teacher.sample(seen, teacher.noise(rows, generator)).x
        device, every = chain.device, torch.arange(rows, device=chain.device)
        k = torch.randint(taught, (rows,), generator=generator, device=device)
        shares = torch.rand(2, rows, generator=generator, device=device, dtype=torch.float64)
        end = torch.full_like(k, taught) if self.until == "end" else _between(k, taught, shares[0])
        teaching = _between(k, end, shares[1])
        here, later = chain[every, k], chain[every, teaching]
        t, s, until = (index.to(chain) / taught for index in (k, teaching, end))
        objective = Consistency(taught, self.huber)

        def losses(context: Context, part: slice) -> Tensor:
            ends = (here[part], t[part]), (later[part], s[part])
            return objective.agreement(state.policy, context, *ends, until[part])

        return losses


def _between(k: Int[Tensor, " B"], last: Int[Tensor, " B"] | int, share: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One of k + 1, ..., last, by uniform numbers."""
    return k + 1 + (share * (last - k)).long()
