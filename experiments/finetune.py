"""Fine-tuning: iterations of a learner, evaluated and saved; resumable to the bit at every checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..algos.black_box import Exported
from ..algos.decorator import PolicyDecorator
from ..algos.dppo import DPPO
from ..algos.dsrl import DSRLSAC
from ..algos.onpolicy import OnPolicy
from ..algos.q_learning import QLearning
from ..algos.resip import ResiP
from ..algos.sac import SAC
from ..datasets.episodes import Episodes
from ..datasets.readers import load
from ..envs import make
from ..envs.observed import Observed
from ..envs.seeds import eval_seeds
from ..envs.vector import TensorEnv
from ..errors import UserError, at_least
from ..policies.matmul import use_fast_matmul
from ..policies.policy import Policy, PolicyConfig
from ..policies.storage import NamedActor, SavedActor, data_hash, default_device, load_plain_policy, load_policy
from .checkpoint import resume, write_checkpoint
from .env_ref import EnvRef
from .evaluate import evaluate, of_policy
from .learner import Learner
from .loggers import SinkName
from .methods import name_of
from .offpolicy import OffPolicyLearner, online_steps
from .onpolicy import OnPolicyLearner
from .pretrain import build_policy
from .recipe import Algorithm, Budget
from .reporter import Reporter
from .run_folder import RunFolder
from .serve_verb import is_deployed, read_token
from .stepper import TimedEnv

ADAPTERS = (DSRLSAC, PolicyDecorator, ResiP)
"""methods that only play their base"""
Start = Policy | Exported


@dataclass(frozen=True)
class Finetune:
    """finetune [RECIPE] [--algo NAME] [--seeds N]: reinforcement learning in simulation, or from recorded data.

    `noisepilot list` names recipes and their algorithms; `--seeds N` runs seeds 0 to N - 1 into OUT/seed<i>. Without
    --policy, `--kind KIND` chooses the fresh policy: diffusion, flow, shortcut, meanflow or consistency, and
    `--fresh.network NAME` and `--fresh.encoder NAME` its network and its encoder of pictures.
    """

    policy: str
    """the base: a policy folder or a pre-training run; for dsrl-na, dsrl-sac, residual and resip also an exported file
    or the address of `noisepilot serve`; none: a fresh policy, its normaliser fitted on `data`"""
    out: str
    """run folder to write"""
    env: EnvRef = field(default_factory=EnvRef)
    algo: Algorithm = field(default_factory=DPPO)
    budget: Budget = field(default_factory=Budget)
    data: str = ""
    """demonstrations with rewards, for off-policy methods"""
    offline_steps: int = 0
    """gradient steps on `data` before any experience; with --budget.iterations 0, instead of it"""
    offline_eval_every: int = 20_000
    """gradient steps between evaluations while there is no experience"""
    fresh: PolicyConfig = field(default_factory=PolicyConfig)
    """what a fresh policy is made of"""
    disk_replay: bool = False
    """off-policy methods: keep the replay in OUT/replay, where it may grow larger than memory"""
    seed: int = 0
    checkpoint_every: int = 1
    """iterations"""
    loggers: tuple[SinkName, ...] = ()
    """mirrors of metrics.jsonl: tensorboard, wandb"""
    resume: bool = False
    """continue the run in `out` from its newest checkpoint; without one, start it from the beginning"""
    token_file: str = ""
    """file with the word that the base's server wants"""

    def __post_init__(self) -> None:
        at_least(0, self, "seed", "offline_steps")
        at_least(1, self, "checkpoint_every", "offline_eval_every")

    def check(self) -> None:
        """Refuse a method without what it learns from.

        Raises:
            UserError: naming what is missing or too much.
        """
        name = name_of(self.algo)
        if self.data and isinstance(self.algo, OnPolicy):
            raise UserError(f"{name} learns from its own experience alone: leave --data out, or choose another --algo")
        if self.offline_steps and not self.data:
            raise UserError("--offline-steps learns from recorded data: give --data")
        if not (self.policy or self.data or type(self.algo) is SAC):
            raise UserError(f"--policy is missing: {name} starts from a policy, or from --data where it can")
        if not (self.policy or type(self.algo) is SAC or isinstance(self.algo, QLearning)):
            raise UserError(f"--policy is missing: {name} never trains its base, so data cannot replace it")
        if is_deployed(self.policy) and not isinstance(self.algo, ADAPTERS):
            raise UserError(
                f"{self.policy} can only be played, and {name} learns its weights: choose --algo dsrl-na, dsrl-sac, "
                "residual or resip, or give the run that it was exported from"
            )
        if not (self.offline_steps or self.budget.iterations):
            raise UserError("there is nothing to do: raise --budget.iterations, or give --data and --offline-steps")
        if isinstance(self.algo, QLearning):
            self.algo.require_steps(self.offline_steps + online_steps(self.algo, self.budget))


def finetune(config: Finetune) -> RunFolder:
    """Run or resume.

    Raises:
        UserError: for a policy, data or settings that do not fit each other; nothing is written then.
    """
    config.check()
    data = load(config.data) if config.data else None
    base = _base(config, data)
    config = replace(config, env=config.env.or_else(*((base.spec.env, base.spec.env_kwargs) if base else ("", {}))))
    hashed = data.hash() if data is not None else _data_hash(config, base)
    run, tree = resume(config, hashed)
    if run and tree and isinstance(base, Exported):
        load_policy(run.path)  # refuses another base than it was begun with
    use_fast_matmul(tree["fast_matmul"] if tree else None)
    with (
        environment(config.env, config.budget.num_envs, base) as env,
        environment(config.env, min(40, config.budget.eval_episodes), base) as eval_env,
    ):
        training = _Training(config, base, data, env, eval_env)
        if run and tree:
            training.load(tree)
            run.truncate_metrics(training.learner.env_steps)
            run.truncate_metrics(training.learner.grad_steps, key="grad_steps")
        elif base is not None:
            training.learner.audit(base)
        run = run or RunFolder.create(config.out, config, data_hash=hashed)
        training.run(run)
    return run


def _base(config: Finetune, data: Episodes | None) -> Start | None:
    if is_deployed(config.policy):
        base = Exported(config.policy, token=read_token(Path(config.token_file) if config.token_file else None))
        if not base.flat_obs:
            raise UserError(f"{config.policy} sees pictures alone, and an adapter of a file sees none: train its run")
        return base
    if config.policy:
        return load_plain_policy(config.policy, "finetune starts from")
    torch.manual_seed(config.seed)
    return None if data is None else build_policy(config.fresh, data, config.env)


def _data_hash(config: Finetune, base: Start | None) -> str:
    if isinstance(base, Exported):
        return str(base.player.metadata.get("provenance", {}).get("data_hash", ""))
    return data_hash(config.policy) if config.policy else ""


@contextmanager
def environment(ref: EnvRef, num_envs: int, policy: SavedActor | Exported | None) -> Iterator[TensorEnv]:
    """An environment that the policy fits, without what it does not see, closed afterwards."""
    env = make(ref.id, num_envs, str(policy.device if policy else default_device()), **ref.kwargs)
    try:
        if policy is not None:
            policy.spec.check_env(env.spec)
            env = TensorEnv(Observed(env.core, policy.spec.obs), env.device)
        yield env
    finally:
        env.close()


@contextmanager
def learner_of(config: Finetune) -> Iterator[Learner]:
    """What a run would begin with, for those who ask whether and how it would.

    Raises:
        UserError: as `finetune`.
    """
    config.check()
    data = load(config.data) if config.data else None
    base = _base(config, data)
    with environment(config.env, config.budget.num_envs, base) as env:
        yield _learner(config, base, data, TimedEnv(env))


class _Training:
    """A learner, and when it is evaluated and saved."""

    def __init__(
        self, config: Finetune, base: Start | None, data: Episodes | None, env: TensorEnv, eval_env: TensorEnv
    ) -> None:
        self.config, self.base, self.eval_env = config, base, eval_env
        if base is not None:
            base.spec = replace(base.spec, env=env.spec.id, env_kwargs=env.spec.kwargs)
        torch.manual_seed(config.seed)
        self.learner = _learner(config, base, data, TimedEnv(env))
        self.wall_s = 0.0

    def run(self, run: RunFolder) -> None:
        """Learn from recorded data, then from experience, each to the end of its budget."""
        steps = self.config.offline_steps
        if self.learner.offline_steps < steps:
            with self._reporter(run, "offline", steps, "grad_steps") as report:
                self._offline(run, report)
        if self.config.budget.iterations:
            with self._reporter(run, "finetune", *self._goal()) as report:
                self._online(run, report)

    def _offline(self, run: RunFolder, report: Reporter) -> None:
        learner, config = self.learner, self.config
        self._start(run, report)
        while learner.offline_steps < config.offline_steps:
            steps = min(config.offline_eval_every, config.offline_steps - learner.offline_steps)
            metrics = self._timed(lambda steps=steps: learner.offline(steps))
            report(self.line(metrics | self._evaluate(run)))
            self._save(run)

    def _online(self, run: RunFolder, report: Reporter) -> None:
        learner, budget = self.learner, self.config.budget
        self._start(run, report)
        while not self._spent():
            before = self.wall_s
            metrics = self._timed(learner.iterate)
            done, last = learner.iteration, self._spent()
            due = last or budget.due(done, before, self.wall_s)
            if due:
                metrics |= self._evaluate(run)
            report(self.line(metrics))
            if last or (due if budget.wall_s else done % self.config.checkpoint_every == 0):
                self._save(run)

    def _start(self, run: RunFolder, report: Reporter) -> None:
        """The evaluation before learning: of the actor, and of the base where the actor does not act like it yet."""
        if self.learner.position > 0:
            return
        if self.config.policy and self.base is not None and not self.learner.starts_as_base:
            self._measure(self.base, run, "base")
        report(self.line(self._evaluate(run)))

    def _evaluate(self, run: RunFolder) -> dict[str, float]:
        return self._measure(self.learner.actor, run, f"{self.learner.position:09d}")

    def _measure(self, actor: NamedActor, run: RunFolder, name: str) -> dict[str, float]:
        ledger = evaluate(actor, self.eval_env, eval_seeds(self.config.budget.eval_episodes))
        of_policy(ledger, actor, str(run.path)).save(run.eval_path(name))
        return ledger.metrics()

    def _save(self, run: RunFolder) -> None:
        write_checkpoint(run, self.learner.position, self.learner.actor, self.tree())

    def _timed(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        metrics = work()
        self.wall_s += time.perf_counter() - started
        return metrics

    def _spent(self) -> bool:
        return self.config.budget.spent(self.learner.iteration, self.wall_s)

    def _goal(self) -> tuple[int, str]:
        """What the progress bar counts to."""
        budget = self.config.budget
        if budget.wall_s:
            return round(budget.wall_s), "wall_s"
        per_decision = self.learner.actor.spec.n_action_steps
        return budget.iterations * budget.decisions * budget.num_envs * per_decision, "env_steps"

    def _reporter(self, run: RunFolder, phase: str, total: int, unit: str) -> Reporter:
        name = f"{phase} {name_of(self.config.algo)}"
        since = {"grad_steps": self.learner.grad_steps, "env_steps": self.learner.env_steps, "wall_s": 0}[unit]
        return Reporter(run, name, total=total, unit=unit, sinks=self.config.loggers, since=since)

    def line(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        steps = self.learner.env_steps
        return {
            "env_steps": steps,
            "grad_steps": self.learner.grad_steps,
            "iteration": self.learner.iteration,
            "wall_s": self.wall_s,
            "time/total_timesteps": steps,
            "time/fps": steps / self.wall_s if self.wall_s else None,
            **metrics,
        }

    def tree(self) -> dict[str, Any]:
        """Everything that a bit-equal continuation needs."""
        fast = torch.get_float32_matmul_precision() == "medium"
        return {"learner": self.learner.tree(), "wall_s": self.wall_s, "fast_matmul": fast}

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        self.learner.load(tree["learner"])
        self.wall_s = tree["wall_s"]


def _learner(config: Finetune, base: Start | None, data: Episodes | None, env: TimedEnv) -> Learner:
    if isinstance(config.algo, OnPolicy):
        assert base is not None, "checked"
        return OnPolicyLearner(config.algo, base, env, config.budget, config.seed)
    folder = Path(config.out) / "replay" if config.disk_replay else None
    return OffPolicyLearner(config.algo, base, env, config.budget, config.seed, data, folder)
