"""The Core of every in-process MuJoCo task: a task says what things mean, an engine moves the bodies.

N slots, M of them addressed, n actions per chunk, A action dimensions.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import mujoco
import numpy as np

from ..spec import ArraySpec, EnvSpec
from .core import State, Step
from .episodes import Episodes, Outcome, check_seeds
from .native import RolloutEngine
from .physics import load_model
from .render import Camera
from .task import Signalling, Task
from .threaded import DataEngine


@runtime_checkable
class Engine(Protocol):
    """Moves N slots of one model and remembers where each of them is."""

    def start(self, slot: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put a slot to the beginning of an episode."""
        ...

    def advance(self, slots: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
        """Run actions (M, n, A); return frames (M, n + 1, ...), the present one first."""
        ...

    def settle(self, slots: np.ndarray, last: np.ndarray) -> None:
        """Keep the state after action `last` (M,) of the chunk just run as the state of each slot."""
        ...

    def frame(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        """The present frame of slots, name -> (M, ...)."""
        ...

    def physics(self, slot: int) -> tuple[np.ndarray, int]:
        """A slot's MuJoCo state vector and the mjtState bits that describe it."""
        ...

    def get_state(self, slots: np.ndarray) -> State:
        """Arrays to continue from, slot first."""
        ...

    def set_state(self, slots: np.ndarray, state: State) -> None:
        """Continue from arrays of `get_state`."""
        ...

    def close(self) -> None:
        """Free threads."""
        ...


class MujocoCore:
    """A `Core` made of a task and an engine."""

    def __init__(self, spec: EnvSpec, task: Task, model: mujoco.MjModel, engine: Engine, num_envs: int) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.task = task
        self.model = model
        self.engine = engine
        self.episodes = Episodes(spec, num_envs)
        self.camera = Camera(model)

    def reset(
        self, seeds: Sequence[int], slots: Sequence[int] | None = None, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Start episodes as Gymnasium does for the same seeds; `state` replaces the drawn start."""
        chosen = self.episodes.select(slots)
        if state is None:
            for slot, seed in zip(chosen, check_seeds(seeds, chosen), strict=True):
                self.engine.start(int(slot), *self.task.start(self.model, np.random.default_rng(seed)))
        else:
            self.engine.set_state(chosen, state)
        obs = self._obs(chosen)
        self.episodes.begin(chosen, obs)
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Execute a chunk of actions, (N, n, A)."""
        slots, action = self.episodes.admit(action)
        frames = self.engine.advance(slots, action)
        before = {name: value[:, :-1] for name, value in frames.items()}
        after = {name: value[:, 1:] for name, value in frames.items()}
        outcome = Outcome(
            obs={"state": self.task.obs(after)},
            reward=self.task.reward(before, after, action, self.model),
            terminated=self.task.terminated(after),
            signals=self.task.signals(after) if isinstance(self.task, Signalling) else {},
        )
        step, last = self.episodes.record(slots, outcome)
        self.engine.settle(slots, last)
        return step

    def get_state(self, slots: Sequence[int] | None = None) -> State:
        """Physics, solver warm start and clock of slots."""
        chosen = self.episodes.select(slots)
        return self.engine.get_state(chosen) | self.episodes.get_state(chosen)

    def set_state(self, state: State, slots: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Continue from `get_state`, bit-equal."""
        chosen = self.episodes.select(slots)
        self.engine.set_state(chosen, state)
        obs = self._obs(chosen)
        self.episodes.set_state(chosen, state, obs)
        return obs

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot, (height, width, 3) uint8."""
        return self.camera.picture(*self.engine.physics(slot), width, height)

    def close(self) -> None:
        """Free threads and the renderer."""
        self.engine.close()
        self.camera.close()

    def _obs(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        return {"state": self.task.obs(self.engine.frame(slots))}


def make_mujoco(task: Task, num_envs: int, **facts: Any) -> MujocoCore:
    """Build N slots of a task; `facts` are fields of EnvSpec that the table of environments knows."""
    model = load_model(facts["id"], task.xml_file)
    if task.reads:
        engine = DataEngine(model, task.frame_skip, num_envs, task.reads)
    else:
        engine = RolloutEngine(model, task.frame_skip, num_envs)
    low, high = model.actuator_ctrlrange.T.tolist()
    spec = EnvSpec(
        obs={"state": ArraySpec(task.obs(engine.frame(np.arange(1))).shape[1:])},
        action=ArraySpec((model.nu,), names=driven_joints(model), low=tuple(low), high=tuple(high)),
        control_hz=1 / (model.opt.timestep * task.frame_skip),
        **facts,
    )
    return MujocoCore(spec, task, model, engine, num_envs)


def driven_joints(model: mujoco.MjModel) -> tuple[str, ...]:
    """What each action moves: motors of some models have no names, but each drives a joint."""
    return tuple(model.joint(joint).name for joint in model.actuator_trnid[:, 0])
