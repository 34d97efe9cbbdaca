"""One step from many: a student maps the teacher's initial noise straight to the teacher's action.

Same-noise regression: for observations o and initial noise z, the teacher walks its chain without further noise to
a(o, z), a function of z; the student, a policy on the linear path with one step, is regressed on it. Pairing
by noise keeps every mode: nothing is averaged over z. Shapes: B batch, H horizon, A action dim, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import UserError, at_least
from ..policies.networks import Network
from ..policies.objective import Matching
from ..policies.path import LinearPath
from ..policies.policy import Policy
from ..shapes import Float
from .bc import BC, BCState


@dataclass(frozen=True)
class Distill:
    """Hyperparameters of distillation."""

    network: Network | None = None
    """the student's network; None: the teacher's"""
    fit: BC = field(default_factory=lambda: BC(grad_steps=20_000, batch=512, ema_decay=0.99))
    """optimiser settings"""
    rounds: int = 2
    """times that observations are gathered: first by the teacher, then by the student itself (DAgger)"""
    decisions: int = 20_000
    """decisions gathered per round"""

    def __post_init__(self) -> None:
        at_least(1, self, "rounds", "decisions")
        at_least(self.rounds, self.fit, "grad_steps")

    def teacher(self, policy: Policy) -> Policy:
        """The same weights, walked without noise between the steps."""
        return policy.with_sampler(policy.config.sampler.without_noise())

    def student(self, teacher: Policy) -> Policy:
        """A fresh one-step policy with the teacher's normaliser.

        Raises:
            UserError: for a teacher that sees pictures: nothing would teach its student's encoder.
        """
        if teacher.pictures:
            raise UserError(
                f"the policy sees '{next(iter(teacher.pictures))}', and a student of it would not learn to see: "
                "distil one without pictures, or tune this one by dppo or reinflow"
            )
        config = replace(
            teacher.config,
            network=replace(self.network or teacher.config.network, step_size=False),
            path=LinearPath(),
            sampler=teacher.config.sampler.without_noise(1),
            predicts="data",
            objective=Matching(),
            tuned_from=0.0,
        )
        student = Policy(config, teacher.spec).to(teacher.device, teacher.dtype)
        student.normalizer.load_state_dict(teacher.normalizer.state_dict())
        return student

    @torch.no_grad()
    def targets(
        self, teacher: Policy, features: Float[Tensor, "B F"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
        """Initial noise and the teacher's normalised action for it."""
        noise = teacher.noise(len(features), generator)
        return noise[:, 0], teacher.sample(teacher.context(features), noise, start=teacher.config.sampler.steps).action

    def update(
        self, state: BCState, teacher: Policy, features: Float[Tensor, "B F"], generator: torch.Generator
    ) -> Tensor:
        """One gradient step on fresh noise; returns the loss."""
        policy, draws = state.policy, self.fit.draws
        noise, action = self.targets(teacher, features.repeat_interleave(draws, 0), generator)
        t = torch.zeros(len(noise), device=features.device, dtype=torch.float64)

        def loss(rows: slice) -> Tensor:
            drawn, context = self.fit.drawn(rows), policy.context(features[rows]).repeat(draws)
            return policy.loss(context, action[drawn], t[drawn], noise[drawn]).mean()

        return self.fit.apply(state, loss, len(features))
