"""Distribution matching: the student's samples shall be as likely under the teacher as the teacher's are.

OneDP (Wang et al. 2024, https://arxiv.org/abs/2410.21257), variational score distillation: the gradient of the
divergence between noised samples of student and teacher is the difference of their scores, and a second network that
denoises the student's samples gives the student's. It is normalised as in DMD (Yin et al. 2024,
https://arxiv.org/abs/2311.18828), whose regression on the teacher's couplings is kept as well: OneDP starts from the
teacher's weights instead, which a student on another path cannot. Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UserError, at_least, positive
from ..policies.networks import Network
from ..policies.objective import Matching
from ..policies.policy import Context, Policy, PolicyConfig
from .bc import BCState
from .students import Lesson, Regression, couple


@dataclass
class Matched(BCState):
    """The student, and the denoiser of its samples."""

    score: Policy | None = None
    score_optimizer: torch.optim.Optimizer | None = None


@dataclass(frozen=True)
class OneDP:
    """One step whose samples climb the teacher's score and leave their own."""

    steps: ClassVar[int] = 1

    regression: float = 1.0
    """weight of same-noise regression beside it; 0: none"""
    score_lr: float = 1e-3
    """of the denoiser of the student's samples, which starts as the teacher's; Adam"""

    def __post_init__(self) -> None:
        at_least(0, self, "regression")
        positive(self, "score_lr")

    def config(self, teacher: PolicyConfig, network: Network) -> PolicyConfig:
        """As for regression; the teacher must denoise at every time."""
        if teacher.tuned_from > 0:
            raise UserError(
                "onedp asks the teacher at every time, and the last steps of this one were tuned: take regression"
            )
        if not isinstance(teacher.objective, Matching):
            kind = type(teacher.objective).__name__
            raise UserError(f"onedp needs a teacher that denoises, and this one was trained by {kind}: take regression")
        return Regression(from_teacher=False).config(teacher, network)

    def begin(self, state: BCState, teacher: Policy) -> Matched:
        """The denoiser starts as the teacher's."""
        score = copy.copy(teacher)
        score._modules = {**teacher._modules, "network": copy.deepcopy(teacher.network).requires_grad_()}
        if score.network.encoder is not None:
            score.network.encoder.requires_grad_(False)
        adam = torch.optim.Adam(score.network.parameters(), lr=self.score_lr)
        return Matched(state.policy, state.average, state.optimizer, state.step, score, adam)

    def lesson(self, state: BCState, teacher: Policy, seen: Context, generator: torch.Generator) -> Lesson:
        """One step of the denoiser on the student's samples, then where the scores send them."""
        assert isinstance(state, Matched)
        assert state.score is not None
        assert state.score_optimizer is not None
        student, score = state.policy, state.score
        noise, action = couple(teacher, seen, generator)
        zero = torch.zeros(len(noise), device=noise.device, dtype=torch.float64)
        with torch.no_grad():
            sample = student.predict(student.context(seen.features), noise, zero)
        context = score.context(seen.features)
        state.score_optimizer.zero_grad()
        Matching().loss(score, context, sample, generator).mean().backward()
        state.score_optimizer.step()
        moved = self._moved(teacher, seen, score, sample, generator)

        def losses(context: Context, rows: slice) -> Tensor:
            made = student.predict(context, noise[rows], zero[rows])
            climbed = (made - moved[rows]).square().mean((1, 2))
            return climbed + self.regression * (made - action[rows]).square().mean((1, 2))

        return losses

    @torch.no_grad()
    def _moved(
        self, teacher: Policy, seen: Context, score: Policy, sample: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The samples, moved by the difference of what both denoisers make of them under fresh noise."""
        points = Matching().draw(teacher, sample, generator)
        alpha, sigma = (c.to(sample)[:, None, None] for c in teacher.config.path.alpha_sigma_tensor(points.t))
        x = alpha * sample + sigma * points.noise
        theirs, own = (
            p.predict_data(c, x, points.t) for p, c in ((teacher, seen), (score, score.context(seen.features)))
        )
        # The mean is the batch's: a chunk has few numbers, not pixels. Where little data is left in x, a network of
        # noise knows little of it, and alpha says how much.
        scale = (sample - theirs).abs().mean().clamp_min(1e-3)
        return sample + alpha * (theirs - own) / scale
