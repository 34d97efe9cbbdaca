"""Distillation by result: several methods at equal budgets, and the student that is fast, smooth and good enough.

OUT/candidates/<name>/    a run each, with its checkpoint and eval/student.json
OUT/candidates.json       every number of the table
OUT/checkpoints/<step>/   the student that is kept
OUT/eval/                 teacher.json, and student.json of the one that is kept
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..algos.distill import METHODS, Distill, named
from ..envs.seeds import eval_seeds
from ..envs.vector import TensorEnv
from ..errors import UserError, at_least
from ..files import atomic_write
from ..policies.policy import Policy
from ..policies.storage import data_hash, load_plain_policy
from .checkpoint import write_checkpoint
from .compare import difference
from .distill import NUM_ENVS, DistillRun, Seen, Training, distill
from .distill_choice import MARGIN, Choice, Measured
from .evaluate import evaluate, of_policy
from .finetune import environment
from .limit import read_limit
from .run_folder import RunFolder
from .smoothness import SeamEnv, milliseconds

TIMED = 20
"""gradient steps by which seconds are turned into gradient steps"""


@dataclass(frozen=True)
class AutoDistill(DistillRun):
    """distill [RECIPE] --auto: train students by several methods at equal budgets and keep the best.

    Eligible is who loses less than 5 points of success (5 % of the return where success is not known) to the teacher
    on the same episodes, with 95 % confidence. Kept is the fastest of them, among equally fast ones the smoothest; if
    nobody is eligible, the one with the best score.
    """

    candidates: str = ""
    """methods, with commas between, NAME:STEPS for a student of so many steps; empty: all that fit the teacher"""
    budget: str = ""
    """of each: grad_steps=N, or wall=SECONDS of gradient steps; empty: distill.fit.grad-steps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self, "eval_episodes")
        _ = self.names, self.limit  # refuse what they refuse

    @property
    def names(self) -> list[str]:
        """The methods."""
        names = [name.strip() for name in self.candidates.split(",") if name.strip()]
        if len(set(names)) < len(names):
            raise UserError(f"--candidates {self.candidates} names one twice: name each once")
        for name in names:
            named(name)
        return names or list(METHODS)

    @property
    def limit(self) -> tuple[str, float]:
        """What each may spend: ("grad_steps" or "wall", amount)."""
        return read_limit(self.budget or f"grad_steps={self.distill.fit.grad_steps}", "grad_steps", "wall=300")


def auto(config: AutoDistill) -> tuple[RunFolder, Choice]:
    """Train all candidates, measure them beside the teacher, keep one.

    Raises:
        UserError: before anything is trained, if there is no environment to measure in, a method that was named does
            not fit the teacher, or none does.
    """
    policy = load_plain_policy(config.policy, "distill takes")
    config = replace(config, env=config.env.or_else(policy.spec.env, policy.spec.env_kwargs))
    plans, left_out = _plans(config, policy)
    with environment(config.env, min(NUM_ENVS, config.eval_episodes), policy) as env:
        run = RunFolder.create(config.out, config, data_hash=data_hash(config.policy))
        runs: dict[str, RunFolder] = {}
        for name, plan in plans.items():
            print(f"{name}: {plan.distill.fit.grad_steps} gradient steps", flush=True)
            runs[name] = distill(plan)
        choice = _measure(config, config.distill.teacher(policy), runs, env, left_out)
    _keep(run, choice)
    return run, choice


def _plans(config: AutoDistill, policy: Policy) -> tuple[dict[str, DistillRun], dict[str, str]]:
    """A run for each method that fits, and why others do not."""
    fitting: dict[str, Distill] = {}
    left_out: dict[str, str] = {}
    for name in config.names:
        settings = replace(config.distill, method=named(name))
        try:
            settings.student(settings.teacher(policy))
            fitting[name] = settings
        except UserError as error:
            if config.candidates:
                raise UserError(f"{name} cannot be a candidate: {error}") from None
            left_out[name] = str(error)
    if not fitting:
        raise UserError(f"no method fits {config.policy}: {'; '.join(left_out.values())}")
    return {name: _plan(config, name, settings, policy) for name, settings in fitting.items()}, left_out


def _plan(config: AutoDistill, name: str, settings: Distill, policy: Policy) -> DistillRun:
    out = str(Path(config.out) / "candidates" / name.replace(":", "-"))
    plan = DistillRun(config.policy, out, config.env, settings, config.data, 0, config.seed)
    kind, amount = config.limit
    steps = int(amount) if kind == "grad_steps" else _affordable(plan, policy, amount)
    return replace(plan, distill=replace(settings, fit=replace(settings.fit, grad_steps=steps)))


def _affordable(plan: DistillRun, policy: Policy, seconds: float) -> int:
    """Gradient steps that take these seconds, as timed on a student that is thrown away."""
    training = Training(plan, policy)
    shape = (plan.distill.fit.batch, policy.feature_dim)
    drawn = torch.randn(shape, generator=training.generator, device=policy.device, dtype=policy.dtype)
    own = drawn if policy.prefix is not None and policy.prefix.encoder is not None else None
    for _ in range(3):
        training.learn(Seen(drawn, own)).item()
    started = time.perf_counter()
    for _ in range(TIMED):
        training.learn(Seen(drawn, own)).item()
    return max(plan.distill.rounds, int(seconds * TIMED / (time.perf_counter() - started)))


def _measure(
    config: AutoDistill, teacher: Policy, runs: Mapping[str, RunFolder], env: TensorEnv, left_out: Mapping[str, str]
) -> Choice:
    seeds = eval_seeds(config.eval_episodes)
    actors = {"teacher": teacher, **{n: load_plain_policy(r.path, "distill keeps") for n, r in runs.items()}}
    ledgers, jerks = {}, {}
    for name, actor in actors.items():
        seams = SeamEnv(env, actor)
        ledgers[name] = of_policy(evaluate(actor, seams, seeds), actor, name).in_seed_order()
        jerks[name] = seams.jerk
    ms = milliseconds(actors, env, seeds[0])
    column = "success" if ledgers["teacher"].has_success else "returns"
    theirs = getattr(ledgers["teacher"], column)
    margin = MARGIN if column == "success" else MARGIN * abs(float(theirs.mean()))

    def measured(name: str) -> Measured:
        versus = difference(theirs, getattr(ledgers[name], column), binary=column == "success")
        return Measured(name, ledgers[name], ms[name], jerks[name], versus, margin, runs.get(name))

    return Choice(measured("teacher"), [measured(name) for name in runs], left_out)


def _keep(run: RunFolder, choice: Choice) -> None:
    """Write every ledger, the table, and the winner as what the run has learned."""
    for student in choice.students:
        assert student.run is not None
        student.ledger.save(student.run.eval_path("student"))
    winner = choice.winner
    assert winner.run is not None
    choice.teacher.ledger.save(run.eval_path("teacher"))
    winner.ledger.save(run.eval_path("student"))
    for line in winner.run.metrics():
        run.log(line)
    atomic_write(run.path / "candidates.json", json.dumps(choice.to_json(), indent=1) + "\n")
    write_checkpoint(run, winner.steps, load_plain_policy(winner.run.path, "distill keeps"), {})
