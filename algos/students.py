"""What a student may be, and what its teacher shows it: methods of distillation on the teacher's own couplings.

A teacher that walks its chain without further noise is a map from initial noise z to an action a(o, z). The pairs
(z, a) are couplings of noise and action: the objectives of `policies/objective.py` learn from them as from data, only
that the noise of each action is known. Every student walks the linear path, whatever path its teacher walks. Shapes:
B batch, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import at_least
from ..policies.networks import Network
from ..policies.objective import Matching, MeanFlow, Points, Shortcut
from ..policies.path import LinearPath, Predicts
from ..policies.policy import Context, Policy, PolicyConfig
from ..policies.sampler import Sampler
from ..shapes import Float
from .bc import BCState

Lesson = Callable[[Context, slice], Float[Tensor, " B"]]
"""(what the student makes of some rows of a batch, which rows) -> their losses; all that is random is drawn before"""


class Method(Protocol):
    """A way of distilling."""

    @property
    def steps(self) -> int:
        """Denoising steps of the student."""
        ...

    def config(self, teacher: PolicyConfig, network: Network) -> PolicyConfig:
        """What the student is, `network` its kind and size.

        Raises:
            UserError: for a teacher that this method cannot learn from.
        """
        ...

    def begin(self, state: BCState, teacher: Policy) -> BCState:
        """What is trained: the student as it comes, and whatever else the method trains beside it."""
        ...

    def lesson(self, state: BCState, teacher: Policy, seen: Context, generator: torch.Generator) -> Lesson:
        """What a batch teaches; `seen` is what the teacher makes of its observations."""
        ...


class OnItsOwn:
    """A method that trains nothing beside the student."""

    def begin(self, state: BCState, teacher: Policy) -> BCState:
        """The student."""
        return state


@dataclass(frozen=True)
class Regression(OnItsOwn):
    """Same-noise regression: one step predicts a(o, z) from z. Nothing is averaged over z, so every mode stays."""

    from_teacher: bool = True
    """a flow's student with the same network is a flow too and starts from its weights; False: from fresh ones"""
    steps: ClassVar[int] = 1

    def config(self, teacher: PolicyConfig, network: Network) -> PolicyConfig:
        """One step of a network that predicts the data, or its way there."""
        alike = teacher.predicts == "velocity" and network == teacher.network
        predicts = "velocity" if self.from_teacher and alike else "data"
        return replace(
            straight(teacher, network, predicts), objective=Matching(), sampler=teacher.sampler.without_noise(1)
        )

    def lesson(self, state: BCState, teacher: Policy, seen: Context, generator: torch.Generator) -> Lesson:
        """Squared error at t = 0."""
        noise, action = couple(teacher, seen, generator)
        return at_noise(state.policy, noise, action)


@dataclass(frozen=True)
class Coupled(OnItsOwn):
    """A velocity network learns an objective on the teacher's couplings.

    `Matching` is reflow (Liu et al. 2022, arXiv:2209.03003): paths that its couplings span cross less than those of
    independent noise, so few steps follow them. `Shortcut` and `MeanFlow` act in any number of steps.
    """

    objective: Matching | Shortcut | MeanFlow = field(default_factory=Matching)
    steps: int = 2
    """denoising steps of the student"""
    paired: bool = True
    """False: fresh noise for each of the teacher's actions, as if they were demonstrations"""

    def __post_init__(self) -> None:
        at_least(1, self, "steps")

    def config(self, teacher: PolicyConfig, network: Network) -> PolicyConfig:
        """A flow; its network sees the step size where the objective needs it."""
        sized = replace(network, step_size=not isinstance(self.objective, Matching))
        return replace(
            straight(teacher, sized, "velocity"), objective=self.objective, sampler=bounded(teacher, self.steps)
        )

    def lesson(self, state: BCState, teacher: Policy, seen: Context, generator: torch.Generator) -> Lesson:
        """The objective's loss between coupled noise and action."""
        noise, action = couple(teacher, seen, generator)
        points = self.objective.draw(state.policy, action, generator)
        if self.paired:
            points = replace(points, noise=noise)

        def losses(context: Context, rows: slice) -> Tensor:
            return self.objective.loss_at(state.policy, context, action[rows], points.rows(rows))

        return losses


@torch.no_grad()
def couple(
    teacher: Policy, seen: Context, generator: torch.Generator
) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
    """Initial noise and the teacher's normalised action for it."""
    noise = teacher.noise(len(seen.features), generator)
    return noise[:, 0], teacher.sample(seen, noise, start=teacher.config.sampler.steps).action


def at_noise(student: Policy, noise: Float[Tensor, "B H A"], action: Float[Tensor, "B H A"]) -> Lesson:
    """Regression of one step on the action of each noise."""
    points = Points(torch.zeros(len(noise), device=noise.device, dtype=torch.float64), noise)

    def losses(context: Context, rows: slice) -> Tensor:
        return student.config.objective.loss_at(student, context, action[rows], points.rows(rows))

    return losses


def straight(teacher: PolicyConfig, network: Network, predicts: Predicts) -> PolicyConfig:
    """The teacher's configuration on the linear path, whole."""
    return replace(teacher, network=network, path=LinearPath(), predicts=predicts, tuned_from=0.0)


def bounded(teacher: PolicyConfig, steps: int) -> Sampler:
    """A deterministic sampler with the teacher's bound of actions, put on what each step says about the action."""
    own = teacher.sampler.without_noise(steps)
    return replace(own, clip_data=own.clip_mean if own.clip_data is None else own.clip_data, clip_mean=None)
