"""On-policy learning: an iteration is a rollout and its update."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..algos.audit import audit_start
from ..algos.onpolicy import OnPolicy
from ..errors import UserError
from ..policies.actor import Base
from ..policies.packed import packed
from ..policies.policy import Policy
from .learner import Learner, training_metrics
from .recipe import Budget
from .rollout import Collector
from .stepper import TimedEnv


class OnPolicyLearner(Learner):
    """Collect, update, and start again from where the environments are.

    Args:
        algo: an on-policy method.
        base: the policy it starts from.
        env: where it acts.
        budget: how much an iteration gathers.
        seed: of the run.
    """

    stepper: Collector
    starts_as_base = True

    def __init__(self, algo: OnPolicy[Any, Any], base: Base, env: TimedEnv, budget: Budget, seed: int) -> None:
        super().__init__(env, torch.Generator(base.device).manual_seed(seed))
        self.algo, self.budget = algo, budget
        wrapped = algo.wrap(base, env, self.generator)
        self.state = algo.init(base)
        self.stepper = Collector(wrapped, base.spec.n_obs_steps, budget.decisions, seed)
        self._count_updates()

    def audit(self, base: Base) -> None:
        """The step-0 gate: before learning, the actor acts like its base walked the same way."""
        actor = self.actor
        if isinstance(actor, Policy) and isinstance(base, Policy):
            base = base.with_sampler(actor.config.sampler)
        audit_start(base, actor, self.stepper.history.obs, self.generator)

    @property
    def grad_steps(self) -> int:
        """Steps of the optimiser that steps most often: a critic may warm up alone."""
        return max(self._updates.values())

    def iterate(self) -> dict[str, Any]:
        """One rollout and its update."""
        in_env = self.timed.seconds
        actor: Any = self.actor
        with packed(actor, self.stepper.env.num_envs):
            rollout, episodes, seconds = self.stepper.collect(self._act, fresh=self.budget.reset_each_iteration)
        in_env = self.timed.seconds - in_env
        started = time.perf_counter()
        learned = self.algo.update(self.state, rollout, self.generator)
        self.iteration += 1
        return {
            **episodes.metrics(),
            **training_metrics(learned),
            "time/env_s": in_env,
            "time/sampling_s": seconds - in_env,
            "time/update_s": time.perf_counter() - started,
        }

    def offline(self, grad_steps: int) -> dict[str, Any]:
        """Not possible."""
        raise UserError("an on-policy method learns from its own experience alone")

    def tree(self) -> dict[str, Any]:
        """With the count of gradient steps."""
        return super().tree() | {"updates": self._updates}

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        super().load(tree)
        self._updates |= tree["updates"]

    def _act(self, obs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.algo.act(self.state, obs, self.generator)

    def _count_updates(self) -> None:
        self._updates = dict.fromkeys(self.state.optimizers(), 0)
        for name, optimizer in self.state.optimizers().items():

            def count(*_: Any, name: str = name) -> None:
                self._updates[name] += 1

            optimizer.register_step_post_hook(count)
