"""Training: `bc/batch128/threads<n>` in samples/s, and one iteration of DPPO and of ReinFlow split into its parts.

One tenth of the official iteration: 40 environments x 50 decisions, minibatches of 5000 samples, 5 epochs; Hopper that
never falls out, so that every step is real. W weights of the network, C of the critic; B batch, K steps,
D decisions over all environments, S trained denoising steps, E epochs.

    BC          6 B W / GEMM rate + 28 W / bandwidth     (forward, twice that backward; AdamW reads 4 arrays, writes 3)
    environment steps / bare mj_step rate
    sampling    2 D K W / GEMM rate
    scoring     4 D C / GEMM rate                        (values before and after every chunk)
    update      6 (E R W + E m C) / GEMM rate            (m: distinct decisions in all minibatches of an epoch;
                                                          R: rows of the network, D S in DPPO, m K in ReinFlow)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..algos.bc import BC
from ..algos.dppo import DPPO
from ..algos.onpolicy import OnPolicy
from ..algos.reinflow import ReinFlow
from ..algos.rollout import Rollout
from ..algos.state import ActorCriticState
from ..envs import make
from ..experiments.rollout import Collector
from ..experiments.stepper import TimedEnv
from ..policies import Policy
from ..policies.packed import packed
from .limits import BYTES, Limits, default_threads
from .peers import PlainTraining
from .race import Effort, Row, Variant, race, ratios, settings
from .stepping import FOREVER, TASKS, physics_rate
from .toys import ACTION, OBS, chain_weights, make_flow, make_policy, weights

BATCH = 128
TASK = "Hopper-v5"
PARTS = ("env", "sampling", "scoring", "update")


def behaviour_cloning(limits: Limits, effort: Effort) -> Iterator[Row]:
    """Gradient steps on a resident batch, on one thread and on all."""
    policy, algo, generator = make_policy(20), BC(), torch.Generator().manual_seed(0)
    state = algo.init(policy)
    obs, action = torch.randn(10_000, 1, OBS), torch.randn(10_000, policy.spec.horizon, ACTION)
    plain = PlainTraining(policy, obs.flatten(1), action, BATCH)

    def step() -> None:
        rows = torch.randint(len(obs), (BATCH,), generator=generator)
        algo.update(state, {"state": obs[rows]}, action[rows], generator)

    count = weights(policy.network)
    for threads in sorted({1, default_threads()}):
        peers = {"plain-loop": Variant(plain.step, threads=threads)}
        if limits.fast_matmul:
            peers["plain-loop+fast-kernels"] = Variant(plain.step, True, threads)
        seconds = race({"ours": Variant(step, limits.fast_matmul, threads), **peers}, effort)
        optimiser = 7 * BYTES * count / limits.bandwidth(4 * BYTES * count)
        least = 6 * BATCH * count / limits.gemm(threads) + optimiser
        rate, faster = BATCH / seconds["ours"], ratios(seconds, "ours", peers)
        yield Row(f"bc/batch{BATCH}/threads{threads}", rate, "samples/s", least / seconds["ours"], faster)


def dppo_iteration(limits: Limits, effort: Effort) -> Iterator[Row]:
    """Seconds of each part of an iteration, the least of several iterations, and of their sum."""
    algo = DPPO(minibatch=5_000 * effort.envs * effort.decisions // 2_000)
    return _iteration("dppo", algo, make_policy(20), 10, limits, effort)


def reinflow_iteration(limits: Limits, effort: Effort) -> Iterator[Row]:
    """The same for ReinFlow with K = 4, every decision ten times in an epoch."""
    algo = ReinFlow(minibatch=5_000 * effort.envs * effort.decisions // 2_000)
    return _iteration("reinflow", algo, make_flow(4), algo.repeats, limits, effort)


def _iteration(name: str, algo: OnPolicy, base: Policy, samples: int, limits: Limits, effort: Effort) -> Iterator[Row]:
    """`samples`: of one decision in an epoch."""
    iteration = _Iteration(algo, base, effort)
    with settings(limits.fast_matmul, None):
        runs = [iteration.run() for _ in range(max(2, effort.rounds // 3))]
    iteration.close()
    seconds = {part: min(run[part] for run in runs) for part in PARTS}
    least = _least(algo, iteration.state, samples, limits, effort)
    for part in PARTS:
        yield Row(f"{name}/{part}", seconds[part], "s", least[part] / seconds[part])
    total = sum(seconds.values())
    yield Row(f"{name}/iteration", total, "s", sum(least.values()) / total)


def _least(algo: OnPolicy, state: ActorCriticState, samples: int, limits: Limits, effort: Effort) -> dict[str, float]:
    decisions, rate = effort.envs * effort.decisions, limits.gemm(default_threads())
    actor, critic = weights(state.policy.network), weights(state.critic)
    spec, steps = state.policy.spec, state.policy.config.sampler.steps
    minibatches = max(1, decisions * samples // algo.minibatch)
    # Each of a decision's samples is in a given minibatch with probability 1 / minibatches.
    distinct = minibatches * decisions * (1 - (1 - 1 / minibatches) ** samples)
    rows = distinct * steps if isinstance(algo, ReinFlow) else decisions * samples
    return {
        "env": decisions * spec.n_action_steps / physics_rate(limits, TASK),
        "sampling": 2 * decisions * steps * chain_weights(state.policy) / rate,
        "scoring": 4 * decisions * critic / rate,
        "update": 6 * algo.epochs * (rows * actor + distinct * critic) / rate,
    }


@dataclass
class _Iteration:
    algo: OnPolicy
    base: Policy
    effort: Effort

    def __post_init__(self) -> None:
        self.env = TimedEnv(make(TASK, self.effort.envs, max_episode_steps=FOREVER, **TASKS[TASK][2]))
        self.state = self.algo.init(self.base)
        self.generator = torch.Generator().manual_seed(0)
        self.collector = Collector(self.env, 1, self.effort.decisions, seed=0)

    def run(self) -> dict[str, float]:
        before = self.env.seconds
        with packed(self.state.policy, self.env.num_envs):
            rollout, _, seconds = self.collector.collect(lambda obs: self.algo.act(self.state, obs, self.generator))
        in_env = self.env.seconds - before
        scoring = _timed(lambda: self.algo.prepare(self.state, rollout, self.generator))
        return {
            "env": in_env,
            "sampling": seconds - in_env,
            "scoring": scoring,
            "update": _timed(lambda: self._update(rollout)) - scoring,
        }

    def close(self) -> None:
        self.env.close()

    def _update(self, rollout: Rollout) -> None:
        self.algo.update(self.state, rollout, self.generator)


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
