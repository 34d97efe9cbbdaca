"""Distillation: gather observations, fit the student, measure it beside its teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..algos.bc import BCState
from ..algos.distill import Distill
from ..algos.views import AT_ONCE
from ..datasets.checks import recorded_elsewhere
from ..datasets.chunks import Chunks
from ..datasets.readers import load
from ..envs.seeds import eval_seeds
from ..envs.vector import TensorEnv
from ..errors import UserError, at_least
from ..policies.matmul import use_fast_matmul
from ..policies.policy import Policy
from ..policies.storage import data_hash, load_plain_policy
from ..shapes import Float
from .checkpoint import write_checkpoint
from .env_ref import EnvRef
from .evaluate import evaluate, of_policy
from .finetune import environment
from .reporter import Reporter
from .run_folder import RunFolder
from .stepper import EpisodeStats, Stepper

NUM_ENVS = 64
LOG_EVERY = 500


@dataclass(frozen=True)
class DistillRun:
    """distill [RECIPE] [--distill.method NAME]: train a fast student of a policy.

    `regression` is the method where none is named; with `--auto` several are tried and the best student is kept: see
    `noisepilot distill --auto --help`.
    """

    policy: str
    """the teacher: a policy folder or a run"""
    out: str
    """run folder to write"""
    env: EnvRef = field(default_factory=EnvRef)
    distill: Distill = field(default_factory=Distill)
    data: str = ""
    """observations from these demonstrations instead of from the environment"""
    eval_episodes: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "seed", "eval_episodes")


def distill(config: DistillRun) -> RunFolder:
    """Train a student; unless it learns from recorded `data`, evaluate teacher and student on the same episodes.

    Raises:
        UserError: if there is neither an environment nor data.
    """
    policy = load_plain_policy(config.policy, "distill takes")
    if not config.data:
        config = replace(config, env=config.env.or_else(policy.spec.env, policy.spec.env_kwargs))
    use_fast_matmul()
    torch.manual_seed(config.seed)
    training = Training(config, policy)
    if config.data:
        seen = training.recorded()
        with _report(config) as report:
            training.fit(seen, config.distill.fit.grad_steps, report)
    else:
        with environment(config.env, NUM_ENVS, policy) as env, _report(config) as report:
            training.rounds(env, report)
    write_checkpoint(report.run, training.state.step, training.student, {})
    return report.run


def _report(config: DistillRun) -> Reporter:
    run = RunFolder.create(config.out, config, data_hash=data_hash(config.policy))
    return Reporter(run, "distill", total=config.distill.fit.grad_steps, unit="grad_steps")


@dataclass(frozen=True)
class Seen:
    """What a teacher makes of D observations."""

    features: Float[Tensor, "D F"]
    frozen: Float[Tensor, "D F"] | None = None
    """of a tuned teacher whose early steps see by an encoder of their own"""

    def rows(self, which: Tensor) -> Seen:
        """Some of them."""
        return Seen(self.features[which], None if self.frozen is None else self.frozen[which])


def _joined(parts: Sequence[Seen]) -> Seen:
    frozen = [part.frozen for part in parts if part.frozen is not None]
    return Seen(torch.cat([part.features for part in parts]), torch.cat(frozen) if frozen else None)


class Training:
    """Teacher, student and the loop between them."""

    def __init__(self, config: DistillRun, policy: Policy) -> None:
        self.config = config
        self.teacher = config.distill.teacher(policy)
        self.state: BCState = config.distill.init(self.teacher)
        self.generator = torch.Generator(policy.device).manual_seed(config.seed)
        self.started = time.perf_counter()

    @property
    def student(self) -> Policy:
        """The student with its averaged weights."""
        return self.state.averaged()

    def rounds(self, env: TensorEnv, report: Reporter) -> None:
        """Gather and fit in turns: what the student itself comes to see counts too (DAgger, Ross et al. 2011)."""
        settings = self.config.distill
        seen = [self.visited(self.teacher, env, 0)]
        for number in range(settings.rounds):
            self.fit(_joined(seen), settings.fit.grad_steps // settings.rounds, report)
            if number + 1 < settings.rounds:
                seen.append(self.visited(self.student, env, number + 1))
        if self.config.eval_episodes:
            seeds = eval_seeds(self.config.eval_episodes)
            for name, actor in (("teacher", self.teacher), ("student", self.student)):
                of_policy(evaluate(actor, env, seeds), actor, name).save(report.run.eval_path(name))

    @torch.no_grad()
    def visited(self, actor: Policy, env: TensorEnv, number: int) -> Seen:
        """What the teacher makes of the observations that an actor, it or its student, meets."""
        decisions = max(1, self.config.distill.decisions // env.num_envs)
        stepper, stats = Stepper(env, actor.spec.n_obs_steps, self.config.seed * 1_000 + number), EpisodeStats()
        met: list[Seen] = []

        def act(obs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            context = self.teacher.encode(obs)
            met.append(Seen(context.features, context.frozen))
            noise = actor.noise(len(context.features), self.generator)
            action = actor.forward(context.features, noise, context.frozen)  # both see by the same encoder
            return action[:, : actor.spec.n_action_steps], {}

        for _ in range(decisions):
            stepper.decide(act, stats)
        return _joined(met)

    @torch.no_grad()
    def recorded(self) -> Seen:
        """What the teacher makes of the observations in a data set."""
        episodes = load(self.config.data)
        env = self.config.env.id or self.teacher.spec.env
        if env and (message := recorded_elsewhere(episodes, env)):
            raise UserError(f"{self.config.data}: {message}")
        self.teacher.spec.check_data(episodes.obs_specs(), episodes.action_spec(), self.config.data)
        seen = episodes.observing(self.teacher.spec.obs)
        chunks = Chunks(seen, 1, self.teacher.spec.n_obs_steps, self.teacher.device)
        rows = torch.arange(len(chunks), device=self.teacher.device)
        contexts = (
            self.teacher.encode(dict(chunks.batch(part).obs))
            for part in rows.split(AT_ONCE if self.teacher.pictures else 10_000)
        )
        return _joined([Seen(context.features, context.frozen) for context in contexts])

    def fit(self, seen: Seen, grad_steps: int, report: Callable[[Mapping[str, Any]], None]) -> None:
        """Let the student learn at random observations and noises."""
        settings, losses, count = self.config.distill, [], len(seen.features)
        for step in range(1, grad_steps + 1):
            rows = torch.randint(count, (settings.fit.batch,), generator=self.generator, device=self.generator.device)
            losses.append(self.learn(seen.rows(rows)))
            if step % LOG_EVERY == 0 or step == grad_steps:
                wall_s = time.perf_counter() - self.started
                line = {
                    "grad_steps": self.state.step,
                    "wall_s": wall_s,
                    "train/loss": float(torch.stack(losses).mean()),
                }
                report(line)
                losses.clear()

    def learn(self, batch: Seen) -> Tensor:
        """One gradient step; returns the loss without waiting for it."""
        return self.config.distill.update(self.state, self.teacher, batch.features, self.generator, batch.frozen)
