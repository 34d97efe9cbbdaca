"""DSRL: reinforcement learning of the noise that a frozen policy is given. Wagenmaker et al. 2025, arXiv:2506.15799.

The base makes the action, a = G(s, w); an actor chooses its initial noise w. Two ways to learn it:

- DSRL-SAC: soft actor-critic in the `NoiseEnv`. The base runs only while acting.
- DSRL-NA (noise aliasing): different w give nearly the same a, so critics learn Q^A(s, a) on executed actions, which
  recorded demonstrations hold too, and Q^W(s, w) is distilled from it on w ~ N(0, I):

      Q^A(s, a)  ->  r + gamma (min_j Q^A_j'(s', G(s', w')) - alpha log pi(w' | s')),    w' ~ pi(. | s')
      Q^W_j(s, w)  ->  Q^A_j(s, G(s, w)),    and pi climbs min_j Q^W_j

Shapes: B batch, F features, N slots, n executed actions, H horizon, A action dim, D noise dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, fractions, positive_or_none
from ..policies.actor import Base, config_of
from ..policies.critic import QMLP, aggregate
from ..policies.gaussian import GaussianMLP
from ..policies.noise_space import NoiseSpace
from ..policies.policy import ACTION
from ..policies.steered import SteeredConfig, steerable
from ..shapes import Float
from ..spec import EnvSpec
from .descent import descend
from .ema import update_average
from .noise_env import NoiseEnv
from .offpolicy import VectorEnv
from .replay import Experience
from .sac import SAC, SACState
from .td import chunk_return, td_loss


@dataclass(frozen=True, kw_only=True)
class DSRLSAC(SAC):
    """DSRL-SAC. Defaults are the official ones but for network sizes, which are those of Hopper.

    After learning starts, returns may dip below the base's for a while: the temperature has fallen before the critics
    know much (seen on robomimic when alpha falls below 0.1). `alpha_floor`, a lower `alpha_lr` and demonstrations help.

    The official rewards are -1 per step until success. Where success pays once instead, the entropy of a long episode
    is worth more than its end: turn `entropy_in_backup` off there and start with a small `alpha`.
    """

    actor: GaussianMLP = field(
        default_factory=lambda: GaussianMLP((128, 128, 128), "tanh", "before", log_std_range=(-20.0, 2.0))
    )
    critic: QMLP = field(default_factory=lambda: QMLP((128, 128, 128), "tanh", layer_norm="before"))
    space: NoiseSpace = field(default_factory=lambda: NoiseSpace(bound=1.5))
    """the noise that the actor may choose; its bound decides how far the actor can leave the base's habits"""
    base_steps: int | None = None
    """denoising steps of the base; None: its own"""
    target_entropy: float | None = 0.0
    sample: bool = True
    replay: int = 1_000_000
    warmup: int = 8_000
    utd: float = 2.5
    train_every: int = 2

    def wrap(self, base: Any, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment whose action is the base's noise."""
        return NoiseEnv(env, base, self.space, self.base_steps)

    def init(self, base: Any, spec: EnvSpec) -> SACState:
        """A fresh actor over the noise of `base`.

        Raises:
            UserError: for a base that takes no noise, or an impossible noise space.
        """
        actor = self.steer(base)
        q = self.critic.build(actor.feature_dim, actor.noise_dim).to(actor.device, actor.dtype)
        return SACState(**self.learners(actor, q))

    def steer(self, base: Base) -> Any:
        """The base under a fresh actor."""
        base = steerable(base, self.base_steps)
        return SteeredConfig(config_of(base), self.actor, self.space, self.sample).build(base.spec, base)

    @torch.no_grad()
    def act(
        self, state: SACState, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Explore: noise (N, 1, D) for the wrapped environment, and the same in units of the bound."""
        chosen = self.choose(state, state.actor.features(obs), generator).clamp(-1, 1)[:, None]
        return self.space.bound * chosen, {"action": chosen}

    def choose(
        self, state: SACState, features: Float[Tensor, "N F"], generator: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """The actor's draw, in units of the bound; standard normal noise, the base's own habit, during warm-up."""
        eps = self._eps(state, len(features), generator)
        warm = self.warmed_up(state, len(features))
        return state.actor.network.sample(features, eps)[0] if warm else eps / self.space.bound

    def _eps(self, state: SACState, rows: int, generator: torch.Generator) -> Float[Tensor, "B D"]:
        actor = state.actor
        return torch.randn(rows, actor.noise_dim, generator=generator, device=actor.device, dtype=actor.dtype)


@dataclass
class DSRLState(SACState):
    """Beside actor and Q^A: the critics of noise."""

    noise_q: nn.Module = field(kw_only=True)
    noise_optimizer: torch.optim.Optimizer = field(kw_only=True)

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        return super().modules() | {"noise_q": self.noise_q}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What has moments."""
        return super().optimizers() | {"noise_critic": self.noise_optimizer}


@dataclass(frozen=True, kw_only=True)
class DSRL(DSRLSAC):
    """DSRL-NA. Defaults are the official ones for Hopper; there the bound is 1, whatever its configuration says.

    Acts in the environment as it is: demonstrations can fill its replay, or a share of each batch.
    """

    space: NoiseSpace = field(default_factory=lambda: NoiseSpace(bound=1.0))
    noise_critic_rate: float = 0.5
    """distillation steps of Q^W per gradient step (official: 10 after every 20)"""
    distill_clip: float | None = None
    """bound of the noise that Q^W is distilled on; None: none"""
    distill_uniform: float = 0.0
    """share of that noise drawn uniformly from the actor's box instead of from N(0, I)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        fractions(self, "noise_critic_rate", "distill_uniform")
        positive_or_none(self, "distill_clip")
        if self.noise_critic_rate == 0:
            raise UserError("noise_critic_rate 0 leaves the actor without a critic: 0.5 is usual")

    def wrap(self, base: Any, env: VectorEnv, generator: torch.Generator) -> VectorEnv:
        """The environment itself: what is stored are the base's actions."""
        return env

    def init(self, base: Any, spec: EnvSpec) -> DSRLState:
        """A fresh actor over the noise of `base`.

        Raises:
            UserError: for a base that takes no noise, or an impossible noise space.
        """
        actor = self.steer(base)
        q = self.critic.build(actor.feature_dim, actor.spec.n_action_steps * actor.spec.action.dim)
        noise_q = self.critic.build(actor.feature_dim, actor.noise_dim).to(actor.device, actor.dtype)
        optimizer = torch.optim.Adam(noise_q.parameters(), lr=self.critic_lr, fused=True)
        learners = self.learners(actor, q.to(actor.device, actor.dtype))
        return DSRLState(**learners, noise_q=noise_q, noise_optimizer=optimizer)

    @torch.no_grad()
    def act(
        self, state: SACState, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Explore: what the base makes of the chosen noise, physical (N, n, A), and the same normalised."""
        executed = self.executed(state, obs, self.choose(state, state.actor.features(obs), generator))
        return executed, {"action": state.actor.normalizer.normalize(ACTION, executed)}

    def update(self, state: DSRLState, batch: Experience, generator: torch.Generator) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One gradient step of Q^A, of Q^W where one is due, and of actor and temperature, in this order."""
        features, following = state.actor.features(batch.obs), state.actor.features(batch.next_obs)
        w = self.distilled_noise(state, len(batch), generator) if self._distils(state.step) else None
        target, executed = self.look_ahead(state, batch, following, w, generator)
        metrics = self.critic_step(state, features, batch.action, target)
        if w is not None:
            metrics |= self.noise_critic_step(state, features, w, executed)
        metrics |= self.actor_step(state, features, self._eps(state, len(batch), generator), state.noise_q, generator)
        update_average(state.target, state.q, 1 - self.tau)
        state.step += 1
        return metrics

    @torch.no_grad()
    def look_ahead(
        self,
        state: DSRLState,
        batch: Experience,
        following: Float[Tensor, "B F"],
        w: Float[Tensor, "B D"] | None,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B n A"]]:
        """Targets of Q^A, and what the base makes of the noise to distil (if any): one chain for both."""
        chosen, log_prob = state.actor.network.sample(following, self._eps(state, len(batch), generator))
        obs = batch.next_obs
        if w is not None:
            obs = {name: torch.cat([value, batch.obs[name]]) for name, value in obs.items()}
            chosen = torch.cat([chosen, w])
        executed = state.actor.normalizer.normalize(ACTION, self.executed(state, obs, chosen)).split(len(batch))
        value = aggregate(state.target(following, executed[0]), self.aggregate, generator)
        if self.entropy_in_backup:
            value = value - state.temperature.log_alpha.exp() * log_prob
        reward, discount = chunk_return(batch, self.gamma, self.gamma_per_step, self.reward_scale)
        return torch.addcmul(reward, discount, value), executed[-1]

    def executed(
        self, state: SACState, obs: Mapping[str, Tensor], chosen: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B n A"]:
        """The part of the base's chunk that is executed, physical; `chosen` in units of the bound."""
        return state.actor.base.act(obs, state.actor.expand(chosen))[:, : state.actor.spec.n_action_steps]

    def distilled_noise(self, state: DSRLState, rows: int, generator: torch.Generator) -> Float[Tensor, "B D"]:
        """The noise that Q^W learns from, in units of the bound."""
        w = self._eps(state, rows, generator) / self.space.bound
        if self.distill_clip is not None:
            w = w.clamp(-self.distill_clip / self.space.bound, self.distill_clip / self.space.bound)
        if self.distill_uniform > 0:
            count = round(self.distill_uniform * rows)
            w[:count] = 2 * torch.rand(w[:count].shape, generator=generator, device=w.device, dtype=w.dtype) - 1
        return w

    def noise_critic_step(
        self, state: DSRLState, features: Float[Tensor, "B F"], w: Float[Tensor, "B D"], executed: Tensor
    ) -> dict[str, Tensor]:
        """Move every Q^W towards its Q^A."""
        with torch.no_grad():
            target = state.q(features, executed)
        loss = 0.5 * td_loss(state.noise_q(features, w), target)
        descend(state.noise_optimizer, loss, self.max_grad_norm)
        return {"noise_critic_loss": loss.detach()}

    def _distils(self, step: int) -> bool:
        """The first step does, and from then on the share that `noise_critic_rate` says."""
        return math.ceil((step + 1) * self.noise_critic_rate) > math.ceil(step * self.noise_critic_rate)
