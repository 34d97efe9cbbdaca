"""On-policy fine-tuning: roll out, update, evaluate, save; resumable to the bit at every checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..algos.audit import audit_start
from ..algos.dppo import DPPO
from ..envs import make
from ..envs.seeds import eval_seeds
from ..envs.vector import TensorEnv
from ..errors import UserError, at_least
from ..policies.matmul import use_fast_matmul
from ..policies.packed import packed
from ..policies.policy import Policy
from ..policies.storage import data_hash, load_policy
from .checkpoint import load_optimizer_state, optimizer_state, resume, write_checkpoint
from .env_ref import EnvRef
from .evaluate import evaluate, of_policy
from .loggers import SinkName
from .recipe import Algorithm, Budget
from .reporter import Reporter
from .rollout import Collector
from .run_folder import RunFolder


@dataclass(frozen=True)
class Finetune:
    """finetune [RECIPE] [--algo NAME] [--seeds N]: reinforcement learning in simulation.

    `noisepilot list` names recipes and their algorithms; `--seeds N` runs seeds 0 to N - 1 into OUT/seed<i>.
    """

    policy: str
    """the base: a policy folder or a pre-training run"""
    out: str
    """run folder to write"""
    env: EnvRef = field(default_factory=EnvRef)
    algo: Algorithm = field(default_factory=DPPO)
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    checkpoint_every: int = 1
    """iterations"""
    loggers: tuple[SinkName, ...] = ()
    """mirrors of metrics.jsonl: tensorboard, wandb"""
    resume: bool = False
    """continue the run in `out` from its newest checkpoint; without one, start it from the beginning"""

    def __post_init__(self) -> None:
        at_least(0, self, "seed")
        at_least(1, self, "checkpoint_every")


def finetune(config: Finetune) -> RunFolder:
    """Run or resume.

    Raises:
        UserError: for a policy or settings that do not fit the environment; nothing is written then.
    """
    base, hashed = load_policy(config.policy), data_hash(config.policy)
    config = replace(config, env=config.env.or_else(base.spec.env, base.spec.env_kwargs))
    run, tree = resume(config, hashed)
    use_fast_matmul(tree["fast_matmul"] if tree else None)
    with (
        environment(config.env, config.budget.num_envs, base) as env,
        environment(config.env, min(40, config.budget.eval_episodes), base) as eval_env,
    ):
        training = _Training(config, base, env, eval_env)
        if run and tree:
            training.load(tree)
            run.truncate_metrics(training.collector.env_steps)
        else:
            audit_start(base, training.state.policy, training.collector.history.obs, training.generator)
        run = run or RunFolder.create(config.out, config, data_hash=hashed)
        training.run(run)
    return run


@contextmanager
def environment(ref: EnvRef, num_envs: int, policy: Policy) -> Iterator[TensorEnv]:
    """An environment that the policy fits, closed afterwards."""
    env = make(ref.id, num_envs, str(policy.device), **ref.kwargs)
    try:
        policy.spec.check_env(env.spec)
        yield env
    finally:
        env.close()


class _Training:
    """The state of one fine-tuning and its loop."""

    def __init__(self, config: Finetune, base: Policy, env: TensorEnv, eval_env: TensorEnv) -> None:
        self.config, self.env, self.eval_env = config, env, eval_env
        torch.manual_seed(config.seed)
        self.state = config.algo.init(base)
        self.state.policy.spec = replace(base.spec, env=env.spec.id, env_kwargs=env.spec.kwargs)
        self.generator = torch.Generator(base.device).manual_seed(config.seed)
        self.collector = Collector(env, base.spec.n_obs_steps, config.budget.decisions, config.seed)
        self.wall_s = 0.0

    def run(self, run: RunFolder) -> None:
        """Iterate to the end of the budget."""
        budget = self.config.budget
        total = budget.iterations * budget.decisions * budget.num_envs * self.state.policy.spec.n_action_steps
        phase = f"finetune {type(self.config.algo).__name__.lower()}"
        since, sinks = self.collector.env_steps, self.config.loggers
        with Reporter(run, phase, total=total, unit="env_steps", sinks=sinks, since=since) as report:
            if self.state.iteration == 0:
                report(self.line(self._evaluate(run)))
            while self.state.iteration < budget.iterations:
                started = time.perf_counter()
                metrics = self.iterate()
                self.wall_s += time.perf_counter() - started
                done = self.state.iteration
                if done == budget.iterations or (budget.eval_every and done % budget.eval_every == 0):
                    metrics |= self._evaluate(run)
                report(self.line(metrics))
                if done % self.config.checkpoint_every == 0 or done == budget.iterations:
                    write_checkpoint(run, self.collector.env_steps, self.state.policy, self.tree())

    def iterate(self) -> dict[str, Any]:
        """One rollout and its update; returns metrics."""
        with packed(self.state.policy, self.env.num_envs):
            rollout, episodes, seconds = self.collector.collect(
                self._act, fresh=self.config.budget.reset_each_iteration
            )
        started = time.perf_counter()
        if not bool(torch.isfinite(rollout.reward).all()):
            raise UserError(f"{self.env.spec.id} returned a reward that is not finite: check the environment")
        learned = self.config.algo.update(self.state, rollout, self.generator)
        if not all(math.isfinite(v) for v in learned.values()):
            raise UserError("a loss is not finite: lower the learning rates, or resume from an earlier checkpoint")
        seconds["time/update_s"] = time.perf_counter() - started
        return episodes.metrics() | {f"train/{k}": v for k, v in learned.items()} | seconds

    def _act(self, obs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.config.algo.act(self.state, obs, self.generator)

    def _evaluate(self, run: RunFolder) -> dict[str, float]:
        policy = self.state.policy
        ledger = evaluate(policy, self.eval_env, eval_seeds(self.config.budget.eval_episodes))
        of_policy(ledger, policy, str(run.path)).save(run.eval_path(f"{self.collector.env_steps:09d}"))
        return ledger.metrics()

    def line(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        steps = self.collector.env_steps
        return {
            "env_steps": steps,
            "iteration": self.state.iteration,
            "wall_s": self.wall_s,
            "time/total_timesteps": steps,
            "time/fps": steps / self.wall_s if self.wall_s else None,
            **metrics,
        }

    def tree(self) -> dict[str, Any]:
        """Everything that a bit-equal continuation needs."""
        return {
            "modules": {k: v.state_dict() for k, v in self.state.modules().items()},
            "optimizers": {k: optimizer_state(v) for k, v in self.state.optimizers().items()},
            "extra": self.state.extra(),
            "collector": self.collector.tree(),
            "generator": self.generator.get_state(),
            "wall_s": self.wall_s,
            "fast_matmul": torch.get_float32_matmul_precision() == "medium",
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        for name, module in self.state.modules().items():
            module.load_state_dict(tree["modules"][name])
        for name, optimizer in self.state.optimizers().items():
            load_optimizer_state(optimizer, tree["optimizers"][name])
        self.state.load_extra(tree["extra"])
        self.collector.load(tree["collector"])
        self.generator.set_state(tree["generator"])
        self.wall_s = tree["wall_s"]
