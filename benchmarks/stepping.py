"""Environment steps: `env/<id>/native` beside Gymnasium's vector environments; 40 environments, chunks of 4.

Episodes neither end nor start again while the clock runs (no termination, no time limit), and all see uniform
random actions. The limit is the rate of bare `mj_step` loops on all cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..envs import make_core
from .limits import CHUNK, BareStepping, Limits
from .race import Effort, Row, Variant, race

FOREVER = 1_000_000_000
TASKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "Hopper-v5": ("hopper.xml", 4, {"terminate_when_unhealthy": False}),
    "HalfCheetah-v5": ("half_cheetah.xml", 5, {}),
    "Ant-v5": ("ant.xml", 5, {"terminate_when_unhealthy": False}),
    "Humanoid-v5": ("humanoid.xml", 5, {"terminate_when_unhealthy": False}),
}
"""environment -> model, physics steps per action, keywords"""


def physics_rate(limits: Limits, env: str) -> float:
    """Actions per second of the bare simulation of an environment."""
    xml, frame_skip, _ = TASKS[env]
    return limits.physics(xml, frame_skip)


def stepping(env: str, limits: Limits, effort: Effort) -> Iterator[Row]:
    """One environment by all who step it."""
    kwargs = TASKS[env][2]
    core = make_core(env, effort.envs, max_episode_steps=FOREVER, **kwargs)
    core.reset(list(range(effort.envs)))
    vectors = {kind: _gymnasium(kind, env, effort.envs, kwargs) for kind in ("sync", "async")}
    draw = _actions(core.spec.action.low, core.spec.action.high, effort.envs)
    variants = {"native": Variant(lambda: core.step(draw()))} | {
        f"gymnasium-{kind}": Variant(lambda vector=vector: _chunk(vector, draw())) for kind, vector in vectors.items()
    }
    xml, frame_skip, _ = TASKS[env]
    bare = BareStepping(xml, frame_skip, effort)
    try:
        # The limit takes its turns with the others: what else the machine does slows all alike.
        seconds = race({**variants, "bare": Variant(bare)}, effort)
    finally:
        for closable in (core, bare.crew, *vectors.values()):
            closable.close()
    steps, limit = effort.envs * CHUNK, bare.rate(seconds.pop("bare"))
    limits.known[xml, frame_skip] = limit
    for name, best in seconds.items():
        peers = {k: s / best for k, s in seconds.items() if k != "native"} if name == "native" else None
        yield Row(f"env/{env}/{name}", steps / best, "steps/s", steps / best / limit, peers)


def _gymnasium(kind: str, env: str, num_envs: int, kwargs: dict[str, Any]) -> Any:
    import gymnasium as gym

    vector = gym.make_vec(env, num_envs, vectorization_mode=kind, **{"max_episode_steps": FOREVER, **kwargs})
    vector.reset(seed=0)
    return vector


def _chunk(vector: Any, action: np.ndarray) -> None:
    for i in range(CHUNK):
        vector.step(action[:, i])


def _actions(low: Any, high: Any, num_envs: int) -> Any:
    rng = np.random.default_rng(0)
    low, high = np.asarray(low), np.asarray(high)
    return lambda: rng.uniform(low, high, (num_envs, CHUNK, len(low)))
