"""What an actor-critic algorithm keeps between updates, and how it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..policies.critic import Critic
from ..policies.policy import Policy
from ..shapes import Float, Int
from .returns import RewardScale
from .views import AT_ONCE, Views

StateT = TypeVar("StateT", bound="ActorCriticState")


@dataclass
class ActorCriticState:
    """Policy, critic, their optimisers and the reward scale."""

    policy: Policy
    critic: nn.Module
    actor_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    scale: RewardScale
    iteration: int = 0

    @classmethod
    def create(
        cls: type[StateT],
        policy: Policy,
        critic: nn.Module,
        actor_lr: float,
        critic_lr: float,
        scale: RewardScale,
        beside: Sequence[nn.Module] = (),
        **fields: Any,
    ) -> StateT:
        """Optimisers without weight decay, as in DPPO; the actor's trains the modules `beside` the policy too."""
        trained = [p for module in (policy.network, *beside) for p in module.parameters()]
        actor = torch.optim.AdamW(trained, lr=actor_lr, weight_decay=0, fused=True)
        value = torch.optim.AdamW(critic.parameters(), lr=critic_lr, weight_decay=0, fused=True)
        return cls(policy, critic, actor, value, scale, **fields)

    def value(self, seen: Float[Tensor, "B F"] | Views) -> Float[Tensor, " B"]:
        """Values of features, or of pictures that the critic encodes, in parts that bound memory."""
        if isinstance(seen, Views):
            rows = torch.arange(len(seen), device=self.policy.device)
            return torch.cat([self.value_of(seen, part) for part in rows.split(AT_ONCE)])
        return torch.cat([self.critic(part) for part in seen.split(1_000)])  # stays in a CPU's caches

    def value_of(self, views: Views, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Values of some pictures, as the critic's own encoder sees them."""
        return self.critic(views.features(self.policy, rows, cast(Critic, self.critic).encoder))

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.actor_optimizer.zero_grad()
        self.critic_optimizer.zero_grad()

    def clip_gradients(self, norm: float) -> None:
        """Bound the norm of the actor's and of the critic's gradient."""
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)

    @property
    def actor(self) -> Policy:
        """What is evaluated and saved."""
        return self.policy

    def modules(self) -> dict[str, nn.Module]:
        """What has weights."""
        return {"policy": self.policy, "critic": self.critic}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What has moments."""
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}

    def extra(self) -> dict[str, Any]:
        """The rest of the state: numbers and small tensors."""
        return {"scale": asdict(self.scale), "iteration": self.iteration}

    def load_extra(self, extra: dict[str, Any]) -> None:
        """Restore what `extra` returned."""
        scale: dict[str, Any] = dict(extra["scale"])
        for name in ("running", "restart"):
            scale[name] = scale[name].to(self.policy.device)
        self.scale = RewardScale(**scale)
        self.iteration = extra["iteration"]
