"""Diffusion Q-learning: behaviour cloning plus the gradient of Q. Wang et al. 2022, https://arxiv.org/abs/2208.06193.

    loss = BC(policy; dataset actions) - eta Q(obs, a) / |Q|        |Q|: the batch's mean, without gradient

Published methods differ in the action a through which the gradient flows (`extract`):

    chain     the end of the whole chain: DQL for diffusion, FBRAC for flows (Park et al. 2025)
    one_call  the clean action estimated by one network call from a noised dataset action: EDP (Kang et al. 2023)
    student   a one-step policy that repeats the policy's sample for the same noise: FQL (Park et al. 2025);
              loss = BC(policy) + alpha |student(noise) - sample(noise)|^2 - Q / |Q|, the policy itself never sees Q
    one_step  the one step of a policy trained for one: OFQL (2508.13904), MeanFlowQL (2511.13035)
    none      none: BC alone, and Q chooses among candidates, also in the backup: best-of-N, Q-chunking (Li et al. 2025)

Shapes: B batch, E ensemble, M next actions, R noise rows, H horizon (all executed), A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError, at_least
from ..policies.best_of import evaluate, propose
from ..policies.critic import QMLP, aggregate
from ..policies.network import MLP
from ..policies.networks import Network
from ..policies.policy import Context, Policy
from ..shapes import Float, Int
from ..spec import EnvSpec
from .descent import adam, descend
from .distill import Distill
from .ema import average_of
from .q_learning import QLearning, QState
from .replay import Experience
from .students import Regression
from .td import chunk_return, td_loss

Extract = Literal["chain", "one_call", "student", "one_step", "none"]


@dataclass(frozen=True, kw_only=True)
class DQL(QLearning):
    """The hyperparameters are the fields; defaults are DQL's official ones, `METHODS` has those of the others."""

    extract: Extract = "chain"
    eta: float = 1.0
    """weight of the Q term (DQL: Gym 1; antmaze 0.5 to 4.5; Adroit 0.1 to 0.15; kitchen 0.005)"""
    alpha: float = 1.0
    """weight of distillation into the student (FQL's advice with `normalize_q`: 0.03 to 10)"""
    normalize_q: bool = True
    """divide the Q term by the mean |Q| of the batch"""
    actor_q: Literal["random", "mean", "min"] = "random"
    """which Q climbs: one member drawn per step, scaled by another (DQL), or the ensemble's mean (FQL) or least"""
    target_q: Literal["min", "mean"] = "min"
    """the ensemble's value in the backup"""
    backup_candidates: int = 1
    """M: next actions per transition; the largest Q counts (DQL: 10 on antmaze)"""
    max_per_critic: bool = True
    """take the largest of each member before aggregating them (DQL); False: of the aggregate (best-of-N, QC)"""
    average: bool = True
    """next actions come from the policy's slow copy; False: from the policy"""
    ema_start: int = 1000
    student: Network | None = None
    """network of the student; None: like the policy's"""
    candidates: int = 50
    temperature: float | None = 1.0
    max_grad_norm: float | None = 9.0
    """DQL: 1 to 10 by task"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "backup_candidates")
        at_least(0, self, "eta", "alpha")
        if self.extract == "none" and self.candidates < 2:
            raise UserError("extract 'none' improves on behaviour cloning by choosing: give it candidates > 1")

    @property
    def learns_to_act(self) -> bool:
        """A student, or a choice among candidates."""
        return self.extract == "student" or super().learns_to_act

    def init(self, base: Any, spec: EnvSpec) -> QState:
        """A copy of the base, critics, and the student where there is one.

        Raises:
            UserError: for no policy, chunks not executed whole, or a policy that `extract` rules out.
        """
        policy = self._copy(base, spec)
        if self.extract == "one_step":
            if not policy.config.objective.one_step:
                kind = type(policy.config.objective).__name__
                raise UserError(
                    f"extract 'one_step' needs a policy trained to act in one step, not by {kind}: "
                    "pre-train one with --kind meanflow, or extract by 'chain'"
                )
            policy = policy.with_sampler(policy.config.sampler.without_noise(1))
        student = None
        if self.extract == "student":
            if policy.pictures:
                raise UserError(
                    f"the policy sees '{next(iter(policy.pictures))}', and a student beside it would not learn to see: "
                    "take a policy without pictures"
                )
            student = Distill(self.student, method=Regression(from_teacher=False)).student(policy)
            student = student.with_sampler(replace(student.config.sampler, clip_data=1.0))
        critic = self._critic(policy)
        target = average_of(critic)
        return QState(
            policy,
            critic,
            target,
            self._actor(student or policy, target, self.target_q),
            adam([policy, *([student] if student else [])], self.lr),
            adam([critic], self.critic_lr),
            average=average_of(policy) if self.average and not student else None,
            student=student,
            ready=self.act_after if self.learns_to_act else 0,
        )

    def update(self, state: QState, batch: Experience, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of critic and policy; metrics stay on the device."""
        rows, following = len(batch), self._following(state)
        noise = following.noise(rows * self.backup_candidates, generator)
        critic = self.critic_step(state, batch, noise.unflatten(0, (rows, self.backup_candidates)))
        noise = (state.student or state.policy).noise(rows, generator)
        order = torch.randperm(self.critic.ensemble, generator=generator, device=noise.device)
        actor = self.actor_step(state, batch, noise, order, generator)
        self.follow(state)
        return critic | actor

    # The critic

    def critic_step(self, state: QState, batch: Experience, noise: Float[Tensor, "B M R H A"]) -> dict[str, Tensor]:
        """Regress the critic on its targets; `noise` makes the next actions."""
        features = state.policy.encode(batch.obs).features
        q = state.critic(features, batch.action.to(features.dtype))
        loss = td_loss(q, self.q_target(state, batch, noise))
        norm = descend(state.critic_optimizer, loss, self.max_grad_norm)
        return {"critic_loss": loss.detach(), "q": q.detach().mean()} | _named("critic", norm)

    @torch.no_grad()
    def q_target(self, state: QState, batch: Experience, noise: Float[Tensor, "B M R H A"]) -> Float[Tensor, " B"]:
        """Reward plus the discounted value of what the policy does next."""
        policy = self._following(state)
        context = policy.encode(batch.next_obs)
        q = evaluate(state.target, context, propose(policy, context, noise))
        value = aggregate(q.amax(2), self.target_q) if self.max_per_critic else aggregate(q, self.target_q).amax(1)
        reward, discount = chunk_return(batch, self.gamma, self.gamma_per_step, self.reward_scale)
        return reward + discount * value

    def _following(self, state: QState) -> Policy:
        """Whose actions follow in the backup."""
        student = state.student if state.step >= state.ready else None
        return student or state.average or state.policy

    # The policy

    def actor_step(
        self,
        state: QState,
        batch: Experience,
        noise: Float[Tensor, "B R H A"],
        order: Int[Tensor, " E"],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Descend `actor_loss`; the critic's weights get no gradient."""
        loss, metrics = self.actor_loss(state, batch, noise, order, generator)
        norm = descend(state.optimizer, loss, self.max_grad_norm)
        return {name: value.detach() for name, value in metrics.items()} | _named("policy", norm)

    def actor_loss(
        self,
        state: QState,
        batch: Experience,
        noise: Float[Tensor, "B R H A"],
        order: Int[Tensor, " E"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of the policy and its parts.

        Args:
            state: networks.
            batch: transitions.
            noise: of the action whose Q counts.
            order: a permutation of the critic's members: the first climbs, the last scales (`actor_q` "random").
            generator: draws times and noise of the BC term.
        """
        policy = state.policy
        context = policy.encode(batch.obs)
        data = batch.action.to(context.features.dtype)
        parts = {"bc_loss": policy.config.objective.loss(policy, context, data, generator).mean()}
        loss = parts["bc_loss"]
        if self.extract == "none":
            return loss, parts
        if state.student is not None:
            action, error = self._distill(policy, state.student, context, noise)
            parts["distill_loss"] = error
            loss = loss + self.alpha * error
        elif self.extract == "one_call":
            action = self._one_call(policy, context, data, noise, generator)
        else:
            action = policy.sample(context, noise, start=policy.config.sampler.steps).action
        if state.student is not None and state.step < state.ready:
            return loss, parts  # it starts random: first it learns to repeat the policy
        parts["q_loss"] = self._q_loss(state.critic(context.features, action.clamp(-1, 1)), order)
        return loss + self.eta * parts["q_loss"], parts

    def _q_loss(self, q: Float[Tensor, "E B"], order: Int[Tensor, " E"]) -> Float[Tensor, ""]:
        if self.actor_q == "random":
            q = q[order]
            climbing, scaling = q[0], q[-1]
        else:
            climbing = scaling = aggregate(q, self.actor_q)
        loss = -climbing.mean()
        return loss / scaling.detach().abs().mean() if self.normalize_q else loss

    def _distill(
        self, policy: Policy, student: Policy, context: Context, noise: Float[Tensor, "B R H A"]
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, ""]]:
        """The student's action and its distance from the policy's own for the same noise."""
        with torch.no_grad():
            target = propose(Distill(self.student).teacher(policy), context, noise[:, None])[:, 0]
        # Not clipped, so that the student is pulled back from beyond the bounds.
        raw = student.with_sampler(replace(student.config.sampler, clip_data=None, clip_mean=None))
        action = raw.sample(student.context(context.features), noise, start=1).action
        return action, (action - target).square().mean()

    def _one_call(
        self,
        policy: Policy,
        context: Context,
        data: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B R H A"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B H A"]:
        """The clean action as seen from a noised one of the data."""
        t = policy.config.path.draw_t(len(data), generator, data.device)
        alpha, sigma = (c.to(data.dtype)[:, None, None] for c in policy.config.path.alpha_sigma_tensor(t))
        return policy.predict_data(context, alpha * data + sigma * noise[:, 0], t)


def _named(prefix: str, norm: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}_{name}": value for name, value in norm.items()}


_WIDE = QMLP((512, 512, 512, 512), "gelu", 2, "after")
"""FQL's critic"""
METHODS = {
    "dql": DQL(),
    "edp": DQL(extract="one_call", actor_q="mean", ema_start=0),
    "fql": DQL(
        extract="student",
        actor_q="mean",
        target_q="mean",
        critic=_WIDE,
        student=MLP((512, 512, 512, 512), time_dim=0, activation="gelu", residual=False),
        candidates=1,
        temperature=None,
        max_grad_norm=None,
    ),
    "ofql": DQL(extract="one_step", eta=0.1, candidates=1, temperature=None),
    "bfn": DQL(
        extract="none",
        target_q="mean",
        critic=_WIDE,
        candidates=32,
        temperature=None,
        backup_candidates=32,
        max_per_critic=False,
        average=False,
        max_grad_norm=None,
    ),
}
"""Published methods by name. Sources: the official code of DQL, EDP, FQL and QC, and the OFQL paper"""
