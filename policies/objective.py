"""What a network on a path is trained on: each objective turns clean chunks into one loss per sample.

All of them regress the network's output at noisy points of the path; they differ in the target and in whether the
network sees the size d of the step that starts at t (`MLP.step_size`). On the linear path the velocity that a
flow-matching network regresses is data - noise; a shortcut or mean-flow network gives the average velocity over
[t, t + d], with which one step of size d is exact. Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Float
from .path import LinearPath, TimeDraw

if TYPE_CHECKING:
    from .policy import Context, Policy, PolicyConfig

Chunk = Float[Tensor, "B H A"]


@dataclass(frozen=True)
class Points:
    """Where on the path chunks are looked at: all that is random about a loss, drawn before it is computed."""

    t: Float[Tensor, " B"]
    noise: Chunk
    d: Float[Tensor, " B"] | None = None
    """size of the step that starts at t; None: the objective knows no steps"""

    def rows(self, which: slice | Tensor) -> Points:
        """Those of some chunks."""
        return Points(self.t[which], self.noise[which], None if self.d is None else self.d[which])


class Objective:
    """A way of training."""

    one_step: ClassVar[bool]
    """whether one step from noise is meant to give an action"""

    def check(self, config: PolicyConfig) -> None:
        """Refuse a policy that this objective cannot train."""
        raise NotImplementedError

    def draw(self, policy: Policy, data: Chunk, generator: torch.Generator | None) -> Points:
        """Times, steps and noise for a batch."""
        raise NotImplementedError

    def loss_at(self, policy: Policy, context: Context, data: Chunk, points: Points) -> Float[Tensor, " B"]:
        """Loss per sample of normalised data, with everything given; rows may be left out, not reordered."""
        raise NotImplementedError

    def loss(
        self, policy: Policy, context: Context, data: Chunk, generator: torch.Generator | None
    ) -> Float[Tensor, " B"]:
        """The same at points drawn here."""
        return self.loss_at(policy, context, data, self.draw(policy, data, generator))


@dataclass(frozen=True)
class Matching(Objective):
    """Denoising score matching (Ho et al. 2020) or flow matching (Lipman et al. 2023): regression at one time.

    Times are drawn by the path.
    """

    one_step: ClassVar[bool] = False

    def check(self, config: PolicyConfig) -> None:
        """Fits every policy whose network needs no step size."""
        if config.network.step_size:
            raise UserError("objective 'Matching' has no step size: set network.step_size to False")

    def draw(self, policy: Policy, data: Chunk, generator: torch.Generator | None) -> Points:
        """Times by the path."""
        t = policy.config.path.draw_t(len(data), generator, data.device)
        return Points(t, _noise(data, generator))

    def loss_at(self, policy: Policy, context: Context, data: Chunk, points: Points) -> Float[Tensor, " B"]:
        """Squared error of the prediction."""
        return policy.loss(context, data, points.t, points.noise)


@dataclass(frozen=True)
class Shortcut(Objective):
    """One network for any number of steps (Frans et al. 2024, arXiv:2410.12557).

    A part of each batch must agree with two steps of half the size, the rest matches the flow with d = 0. Defaults
    of ReinFlow's code.
    """

    one_step: ClassVar[bool] = True
    bootstrap: float = 0.25
    """share of the batch for self-consistency"""
    levels: int = 8
    """step sizes 1, 1/2, ..., 2^-(levels - 1)"""
    delta: float = 1e-5
    """noise left at t = 1"""

    def check(self, config: PolicyConfig) -> None:
        """Needs a velocity network that sees the step size, on the linear path."""
        _require_average_velocity("Shortcut", config)

    def draw(self, policy: Policy, data: Chunk, generator: torch.Generator | None) -> Points:
        """Self-consistency rows first."""
        rows, device = int(len(data) * self.bootstrap), data.device
        level = torch.randint(self.levels, (rows,), generator=generator, device=device)
        parts = 2**level
        u = torch.rand(rows, generator=generator, device=device, dtype=torch.float64)
        t = torch.cat([(u * parts).floor() / parts, policy.config.path.draw_t(len(data) - rows, generator, device)])
        d = torch.cat([1 / parts.double(), torch.zeros(len(data) - rows, device=device, dtype=torch.float64)])
        return Points(t.to(data), _noise(data, generator), d.to(data))

    def loss_at(self, policy: Policy, context: Context, data: Chunk, points: Points) -> Float[Tensor, " B"]:
        """Squared error of the velocity; rows with d > 0, which come first, bootstrap."""
        t, d, noise = _with_steps(points)
        keep = 1 - self.delta
        x = (1 - keep * _wide(t)) * noise + _wide(t) * data
        rows = int((d > 0).sum())
        target = torch.cat(
            [self._two_halves(policy, context.rows(slice(rows)), x[:rows], t[:rows], d[:rows] / 2),
             data[rows:] - keep * noise[rows:]]
        )  # fmt: skip
        return (_predict(policy, context, x, t, d) - target).square().mean((1, 2))

    @torch.no_grad()
    def _two_halves(self, policy: Policy, context: Context, x: Chunk, t: Tensor, half: Tensor) -> Chunk:
        first = _predict(policy, context, x, t, half)
        return (first + _predict(policy, context, x + _wide(half) * first, t + half, half)) / 2


@dataclass(frozen=True)
class MeanFlow(Objective):
    """The average velocity over [t, s] from its differential identity (Geng et al. 2025, arXiv:2505.13447).

    With d = s - t and time running to the data, (s - t) u = integral of v from t to s; its derivative in t at fixed s
    gives u = v + d (v du/dx + du/dt - du/dd), one forward-mode derivative. Defaults of OFQL (arXiv:2508.13904), whose
    time runs the other way: sigma = 1 - t, so its logit-normal mean of -0.4 is +0.4 here.
    """

    one_step: ClassVar[bool] = True
    matching: float = 0.5
    """share of the batch with d = 0, plain flow matching"""
    times: TimeDraw = field(default_factory=lambda: TimeDraw("logit_normal", mean=0.4))
    """both ends of the interval are drawn from this"""

    def check(self, config: PolicyConfig) -> None:
        """Needs a velocity network that sees the step size, on the linear path."""
        _require_average_velocity("MeanFlow", config)

    def draw(self, policy: Policy, data: Chunk, generator: torch.Generator | None) -> Points:
        """Both ends of every interval, of which a share has no length."""
        n, device = len(data), data.device
        ends = torch.stack([self.times(n, generator, device) for _ in range(2)]).sort(0).values
        plain = torch.rand(n, generator=generator, device=device, dtype=torch.float64) < self.matching
        d = torch.where(plain, 0.0, ends[1] - ends[0])
        return Points(ends[0].to(data), _noise(data, generator), d.to(data))

    def loss_at(self, policy: Policy, context: Context, data: Chunk, points: Points) -> Float[Tensor, " B"]:
        """Squared error of the average velocity."""
        t, d, noise = _with_steps(points)
        x, velocity = (1 - _wide(t)) * noise + _wide(t) * data, data - noise
        with torch.no_grad():
            one = torch.ones_like(t)
            slope = torch.func.jvp(
                lambda x, t, d: _predict(policy, context, x, t, d), (x, t, d), (velocity, one, -one)
            )[1]
        return (_predict(policy, context, x, t, d) - (velocity + _wide(d) * slope)).square().mean((1, 2))


@dataclass(frozen=True)
class Consistency(Objective):
    """Consistency training (Song et al. 2023; Song & Dhariwal 2023): neighbours on one path agree about its end.

    f(x, t) = x + (1 - t) v(x, t) is the end; at t = 1 it is x itself, whatever the network says. Two points of the
    same noise, a step apart, are compared by the pseudo-Huber distance; the later one is the target.
    """

    one_step: ClassVar[bool] = True
    levels: int = 40
    """steps that [0, 1] is cut into"""
    huber: float = 0.03
    """scale of the pseudo-Huber distance"""

    def check(self, config: PolicyConfig) -> None:
        """Needs a velocity network without step size, on the linear path."""
        if config.predicts != "velocity" or config.network.step_size:
            raise UserError("objective 'Consistency' needs predicts 'velocity' and a network without step_size")

    def draw(self, policy: Policy, data: Chunk, generator: torch.Generator | None) -> Points:
        """The earlier one of two neighbours."""
        t = policy.config.path.draw_t(len(data), generator, data.device).to(data) * (1 - 1 / self.levels)
        return Points(t, _noise(data, generator))

    def loss_at(self, policy: Policy, context: Context, data: Chunk, points: Points) -> Float[Tensor, " B"]:
        """Distance between the ends that neighbours predict, weighted by 1 / step."""
        t, noise = _wide(points.t), points.noise
        step = 1 / self.levels
        here, later = (1 - t) * noise + t * data, (1 - t - step) * noise + (t + step) * data
        one = torch.ones_like(points.t)
        return self.levels * self.agreement(policy, context, (here, points.t), (later, points.t + step), one)

    def agreement(
        self,
        policy: Policy,
        context: Context,
        here: tuple[Chunk, Float[Tensor, " B"]],
        later: tuple[Chunk, Float[Tensor, " B"]],
        until: Float[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """Distance between where two points of one path, (x, t) each, lead to at a time; the later is the target."""
        with torch.no_grad():
            target = jump(policy, context, *later, until)
        gap = jump(policy, context, *here, until) - target
        return (gap.square().mean((1, 2)) + self.huber**2).sqrt() - self.huber


def jump(policy: Policy, context: Context, x: Chunk, t: Float[Tensor, " B"], until: Float[Tensor, " B"]) -> Chunk:
    """Where a velocity network leads from x at t in one step; x itself where the step is 0.

    Unbounded, for a bound would stop the gradient.
    """
    d = until - t
    return x + _wide(d) * _predict(policy, context, x, t, d if policy.config.network.step_size else None)


def _noise(data: Chunk, generator: torch.Generator | None) -> Chunk:
    return torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)


def _predict(policy: Policy, context: Context, x: Chunk, t: Tensor, d: Tensor | None = None) -> Chunk:
    """The network's answer in the precision of the losses, whichever it computes in."""
    return policy.predict(context, x, t, d).to(x.dtype)


def _with_steps(points: Points) -> tuple[Tensor, Tensor, Chunk]:
    if points.d is None:
        raise ValueError("these points have no step sizes: draw them by the same objective")
    return points.t, points.d, points.noise


def _wide(t: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1"]:
    return t[:, None, None]


def _require_average_velocity(name: str, config: PolicyConfig) -> None:
    if not isinstance(config.path, LinearPath) or config.predicts != "velocity" or not config.network.step_size:
        raise UserError(f"objective '{name}' needs LinearPath, predicts 'velocity' and network.step_size True")
