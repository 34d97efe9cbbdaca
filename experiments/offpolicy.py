"""Off-policy learning: decisions go to a replay, and gradient steps on samples of it come in between.

Metrics stay on the device until an iteration ends, so that no gradient step waits for a number.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..algos.disk_replay import DiskReplay
from ..algos.offpolicy import OffPolicy, OffPolicyState
from ..algos.replay import Experience, Replay, mixed
from ..datasets.episodes import Episodes
from ..errors import UserError
from ..policies.actor import Base
from .demonstrations import demonstrations
from .learner import Learner, training_metrics
from .recipe import Budget
from .stepper import Decision, EpisodeStats, Stepper, TimedEnv


class OffPolicyLearner(Learner):
    """`train_every` decisions in every slot, then the gradient steps that `utd` asks for, and so on.

    Args:
        algo: an off-policy method.
        base: the policy it starts from, None for one that starts from nothing.
        env: where it acts.
        budget: an iteration is `decisions` decisions in each of its environments.
        seed: of the run.
        folder: where the replay lies on disk; None: in memory, on the environment's device.
        data: recorded episodes. With `demo_share` 0 they are the replay's first content; otherwise they have a replay
            of their own, and each batch draws that share from it.

    Raises:
        UserError: for settings that cannot be trained with.
    """

    state: OffPolicyState

    def __init__(
        self,
        algo: OffPolicy,
        base: Base | None,
        env: TimedEnv,
        budget: Budget,
        seed: int,
        data: Episodes | None = None,
        folder: Path | None = None,
    ) -> None:
        device = env.device
        super().__init__(env, torch.Generator(device).manual_seed(seed))
        self.algo, self.budget = algo, budget
        check_settings(algo, budget)
        wrapped = algo.wrap(base, env, self.generator)
        if data is not None and wrapped is not env:
            name = type(algo).__name__
            raise UserError(f"{name} acts otherwise than in the actions that data hold: leave --data out")
        self.state = algo.init(base, wrapped.spec)
        self.stepper = Stepper(wrapped, self.actor.spec.n_obs_steps, seed)
        self.replay = Replay(algo.replay, device) if folder is None else DiskReplay(folder, algo.replay, device)
        self.demos: Replay | None = None
        if data is not None:
            self._remember(demonstrations(data, self.actor, env.spec))
        self.vector_steps = 0

    def audit(self, base: Base) -> None:
        """Nothing: a method may begin anywhere, so the base is evaluated beside it."""

    @property
    def grad_steps(self) -> int:
        """Gradient steps done, offline ones included."""
        return self.state.step

    def iterate(self) -> dict[str, Any]:
        """Decisions and gradient steps in turns."""
        started, in_env, updating = time.perf_counter(), self.timed.seconds, 0.0
        stats, sums = EpisodeStats(), _Sums()
        for _ in range(self.budget.decisions):
            self.replay.add(_experience(self.stepper.decide(self._act, stats)))
            self.vector_steps += 1
            if self.vector_steps % self.algo.train_every == 0:
                updating += self._catch_up(sums)
        self.iteration += 1
        in_env = self.timed.seconds - in_env
        return {
            **stats.metrics(),
            **training_metrics(sums.means()),
            "replay/size": len(self.replay),
            "time/env_s": in_env,
            "time/sampling_s": time.perf_counter() - started - in_env - updating,
            "time/update_s": updating,
        }

    def offline(self, grad_steps: int) -> dict[str, Any]:
        """Gradient steps on the demonstrations alone."""
        started, sums = time.perf_counter(), _Sums()
        source = self.replay if self.demos is None else self.demos
        for _ in range(grad_steps):
            batch = source.sample(self.algo.batch, self.generator)
            sums.add(self.algo.update(self.state, batch, self.generator))
        self.offline_steps += grad_steps
        learned = training_metrics(sums.means())
        return {**learned, "time/update_s": time.perf_counter() - started}

    def tree(self) -> dict[str, Any]:
        """With the replay; demonstrations of their own are read anew."""
        return super().tree() | {"replay": self.replay.tree(), "vector_steps": self.vector_steps}

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        super().load(tree)
        self.replay.load(tree["replay"])
        self.vector_steps = tree["vector_steps"]

    @torch.no_grad()
    def _act(self, obs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.algo.act(self.state, obs, self.generator)

    def _remember(self, demos: Experience) -> None:
        if self.algo.demo_share == 0 and len(demos) > self.algo.replay:
            raise UserError(
                f"a replay of {self.algo.replay} is too small for {len(demos)} recorded transitions: raise algo.replay"
            )
        if self.algo.demo_share == 0 and isinstance(self.replay, DiskReplay):
            raise UserError("a replay on disk takes no recorded data: raise algo.demo_share or leave --disk-replay out")
        if self.algo.demo_share > 0:
            self.demos = Replay(len(demos), self.timed.device)
        (self.replay if self.demos is None else self.demos).add(demos)

    def _catch_up(self, sums: _Sums) -> float:
        """The gradient steps that are due after the decisions made so far; returns seconds."""
        started = time.perf_counter()
        decisions = self.vector_steps * self.stepper.env.num_envs
        due = int(self.algo.utd * max(0, decisions - self.algo.warmup)) - (self.grad_steps - self.offline_steps)
        for _ in range(due):
            sums.add(self.algo.update(self.state, self._sample(), self.generator))
        if due > 0 and self.timed.device.type == "cuda":
            torch.cuda.synchronize(self.timed.device)  # so that the next decision does not pay for these steps
        return time.perf_counter() - started

    def _sample(self) -> Experience:
        if self.demos is None:
            return self.replay.sample(self.algo.batch, self.generator)
        return mixed(self.replay, self.demos, self.algo.batch, self.algo.demo_share, self.generator)


class _Sums:
    """Means over gradient steps, kept on the device."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: defaultdict[str, int] = defaultdict(int)

    def add(self, metrics: dict[str, Tensor]) -> None:
        """One gradient step's."""
        for name, value in metrics.items():
            value = value.detach()
            self.totals[name] = self.totals[name] + value if name in self.totals else value
            self.counts[name] += 1

    def means(self) -> dict[str, float]:
        """One transfer for all of them; empty without a gradient step."""
        if not self.totals:
            return {}
        totals = torch.stack([value.double().reshape(()) for value in self.totals.values()]).tolist()
        return {name: total / self.counts[name] for name, total in zip(self.totals, totals, strict=True)}


def _experience(decision: Decision) -> Experience:
    step, extras = decision.step, dict(decision.extras)
    found = Experience(
        obs=decision.obs,
        action=extras.pop("action"),
        reward=torch.where(step.valid, step.reward, 0.0).float(),
        length=step.valid.sum(1),
        terminated=step.terminated.any(1),
        next_obs=decision.next_obs,
        extras=extras,
    )
    # Of an episode that was lost nothing is known: not even what its last action did.
    return found.map(lambda value: value[~step.void]) if bool(step.void.any()) else found


def check_settings(algo: OffPolicy, budget: Budget) -> None:
    """Refuse settings with which nothing could be learned.

    Raises:
        UserError: naming the one at fault.
    """
    decisions = budget.iterations * budget.decisions * budget.num_envs
    if budget.iterations and decisions <= algo.warmup:
        raise UserError(
            f"warmup {algo.warmup} takes all of the budget's {decisions} decisions and nothing would be learned: "
            "lower algo.warmup or raise budget.iterations"
        )
    if budget.iterations and online_steps(algo, budget) < 1:
        raise UserError(
            f"utd {algo.utd:g} makes no gradient step of the budget's {decisions} decisions: raise algo.utd"
        )


def online_steps(algo: OffPolicy, budget: Budget) -> int:
    """Gradient steps that a whole budget of experience brings."""
    decisions = budget.iterations * budget.decisions * budget.num_envs
    return int(algo.utd * max(0, decisions - algo.warmup))
