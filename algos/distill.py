"""A fast student of a slow teacher: fewer network calls per decision, one as a rule.

What the student is and what a batch teaches it are the `method`'s; the optimiser, the observations and what teacher
and student share stand here. A teacher that sees hands its encoder on, frozen: features are gathered behind it.
Shapes: B batch, H horizon, A action dim, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import UserError, at_least, unknown
from ..policies.networks import Network
from ..policies.objective import MeanFlow, Shortcut
from ..policies.policy import Policy
from ..shapes import Float
from .bc import BC, BCState
from .consistency import ConsistencyDistillation
from .onedp import OneDP
from .students import Coupled, Regression

Method = Regression | Coupled | ConsistencyDistillation | OneDP
METHODS: dict[str, Method] = {
    "regression": Regression(),
    "reflow": Coupled(),
    "shortcut": Coupled(Shortcut(), steps=1),
    "meanflow": Coupled(MeanFlow(), steps=1),
    "consistency": ConsistencyDistillation(),
    "ctm": ConsistencyDistillation(until="any", steps=1),
    "onedp": OneDP(),
}
"""By the names of the command line; sources stand at each class"""


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
    method: Method = field(default_factory=Regression)
    """`--distill.method NAME` chooses: regression, reflow, shortcut, meanflow, consistency, ctm or onedp"""

    def __post_init__(self) -> None:
        at_least(1, self, "rounds", "decisions")
        at_least(self.rounds, self.fit, "grad_steps")

    def teacher(self, policy: Policy) -> Policy:
        """The same weights, walked without noise between the steps."""
        return policy.with_sampler(policy.config.sampler.without_noise())

    def student(self, teacher: Policy) -> Policy:
        """A fresh policy with the teacher's normaliser and, frozen, its encoder of pictures.

        A flow's student that is a flow of the same network starts from its weights.

        Raises:
            UserError: for a teacher that the method cannot learn from.
        """
        network = replace(self.network or teacher.config.network, step_size=False)
        config = self.method.config(teacher.config, network)
        student = Policy(config, teacher.spec).to(teacher.device, teacher.dtype)
        student.normalizer.load_state_dict(teacher.normalizer.state_dict())
        if config.predicts == teacher.config.predicts == "velocity" and config.network == teacher.config.network:
            student.network.load_state_dict(teacher.network.state_dict())
        if student.network.encoder is not None and teacher.network.encoder is not None:
            student.network.encoder.load_state_dict(teacher.network.encoder.state_dict())
            student.network.encoder.requires_grad_(False)
        return student

    def init(self, teacher: Policy) -> BCState:
        """A student and what trains it.

        Raises:
            UserError: as `student`.
        """
        return self.method.begin(self.fit.init(self.student(teacher)), teacher)

    def update(
        self,
        state: BCState,
        teacher: Policy,
        features: Float[Tensor, "B F"],
        generator: torch.Generator,
        frozen: Float[Tensor, "B F"] | None = None,
    ) -> Tensor:
        """One gradient step on fresh noise; returns the loss.

        Args:
            state: of `init`.
            teacher: of `teacher`.
            features: what the teacher makes of observations.
            generator: of noise and times.
            frozen: what a tuned teacher's frozen encoder makes of them, see `policy.Context`.
        """
        policy, draws = state.policy, self.fit.draws
        with torch.no_grad():
            features, frozen = committed(teacher, features, frozen, generator)
            drawn = None if frozen is None else frozen.repeat_interleave(draws, 0)
            seen = teacher.context(features.repeat_interleave(draws, 0), drawn)
        losses = self.method.lesson(state, teacher, seen, generator)

        def loss(rows: slice) -> Tensor:
            return losses(policy.context(features[rows]).repeat(draws), self.fit.drawn(rows)).mean()

        return self.fit.apply(state, loss, len(features))


def committed(
    teacher: Policy, features: Float[Tensor, "B F"], frozen: Float[Tensor, "B F"] | None, generator: torch.Generator
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B F"] | None]:
    """The same features with the beginnings of chunks that the teacher might have been playing, if it knows prefixes.

    They are of its own chunks for the same observation and other noise, 0 to P actions long.
    """
    prefix = teacher.action_prefix
    if not prefix.most:
        return features, frozen
    playing = teacher.forward(features, teacher.noise(len(features), generator), frozen)
    (part,) = prefix.features(prefix.draw(playing, generator), teacher.normalizer)
    both = [x if x is None else torch.cat([part, x[:, prefix.size :]], 1) for x in (features, frozen)]
    assert both[0] is not None
    return both[0], both[1]


def named(name: str) -> Method:
    """The method of a name, as it comes; NAME:STEPS for a student of so many steps.

    Raises:
        UserError: if there is none of that name, or its student has one step.
    """
    name, _, steps = name.partition(":")
    if name not in METHODS:
        raise unknown("distill.method", name, METHODS)
    method = METHODS[name]
    if not steps:
        return method
    if not steps.isdecimal() or int(steps) < 1:
        raise UserError(f"{name}:{steps} must name a number of denoising steps: {name}:2")
    if isinstance(method, Coupled | ConsistencyDistillation):
        return replace(method, steps=int(steps))
    if int(steps) > 1:
        raise UserError(f"{name} makes students of one step: leave out :{steps}, or take reflow, shortcut or meanflow")
    return method
