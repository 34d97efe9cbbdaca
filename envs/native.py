"""Engine on `mujoco.rollout`: a slot's whole chunk is one native call, the slots are shared among threads.

For tasks whose observation and reward follow from the state alone. Each call also takes and gives back the
solver's warm start, which the state that MuJoCo returns leaves out: without it a chunk of HalfCheetah is off
by 1e-11, with it trajectories equal Gymnasium's bit by bit for as long as one likes. That is why slots are
handed out one by one instead of as one batch: only then is each slot's warm start still there to be read.

N slots, M running, n actions per chunk, A action dimensions, P physics steps per chunk, Q state size.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from .core import State
from .physics import PHYSICS
from .threads import Crew


class RolloutEngine:
    """Moves slots by whole chunks; `state` (N, Q) and `warmstart` (N, nv) say where each is."""

    def __init__(self, model: mujoco.MjModel, frame_skip: int, num_envs: int) -> None:
        self.model = model
        self.frame_skip = frame_skip
        self.state = np.zeros((num_envs, mujoco.mj_stateSize(model, PHYSICS)))
        self.warmstart = np.zeros((num_envs, model.nv))
        self.crew = Crew(num_envs)
        self.rollouts = [Rollout(nthread=0) for _ in range(self.crew.size)]
        self.scratch = [mujoco.MjData(model) for _ in range(self.crew.size)]
        self.buffers = Buffers(self, 0)

    def start(self, slot: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """As Gymnasium starts: a clean state and a forward pass, whose acceleration warms the solver."""
        data = self.scratch[0]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, data)
        mujoco.mj_getState(self.model, data, self.state[slot], PHYSICS)
        self.warmstart[slot] = data.qacc_warmstart

    def advance(self, slots: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
        """Run actions (M, n, A); return frames (M, n + 1, ...), the present one first."""
        running, n, _ = action.shape
        if self.buffers.n != n:
            self.buffers = Buffers(self, n)
        buffers = self.buffers
        buffers.control[:running] = np.repeat(action, self.frame_skip, 1)
        buffers.trace[:running, 0] = self.state[slots]
        buffers.warmstart[:running] = self.warmstart[slots]
        self.crew.run(self._work, running)
        self.warmstart[slots] = buffers.warmstart[:running]
        return self._split(buffers.trace[:running, :: self.frame_skip])

    def settle(self, slots: np.ndarray, last: np.ndarray) -> None:
        """Keep the state after action `last` (M,) of the chunk just run."""
        # The warm start is the chunk's last one: a slot that stopped earlier will never need its own.
        self.state[slots] = self.buffers.trace[np.arange(len(slots)), (last + 1) * self.frame_skip]

    def frame(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        """The present frame of slots."""
        return self._split(self.state[slots])

    def physics(self, slot: int) -> tuple[np.ndarray, int]:
        """A slot's MuJoCo state vector and its mjtState bits."""
        return self.state[slot], PHYSICS

    def get_state(self, slots: np.ndarray) -> State:
        """Physics and warm start."""
        return {"physics": self.state[slots], "warmstart": self.warmstart[slots]}

    def set_state(self, slots: np.ndarray, state: State) -> None:
        """Continue from arrays of `get_state`."""
        self.state[slots] = state["physics"]
        self.warmstart[slots] = state["warmstart"]

    def close(self) -> None:
        """Free the threads."""
        self.crew.close()

    def _work(self, worker: int, rows: Iterator[int]) -> None:
        rollout, data, buffers = self.rollouts[worker].rollout, self.scratch[worker], self.buffers
        for row in rows:
            models, state, control, trace, sensors, warmstart = buffers.rows[row]
            rollout(
                models,
                [data],
                state,
                control,
                skip_checks=True,
                nstep=buffers.nstep,
                initial_warmstart=warmstart,
                state=trace,
                sensordata=sensors,
            )
            warmstart[:] = data.qacc_warmstart

    def _split(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Positions and velocities within state vectors (..., Q), which begin with the time."""
        nq, nv = self.model.nq, self.model.nv
        return {"qpos": state[..., 1 : 1 + nq], "qvel": state[..., 1 + nq : 1 + nq + nv]}


class Buffers:
    """Memory for chunks of n actions, and its views per row: cutting them anew costs as much as physics."""

    def __init__(self, engine: RolloutEngine, n: int) -> None:
        count, size = engine.state.shape
        self.n = n
        self.nstep = n * engine.frame_skip
        self.control = np.zeros((count, self.nstep, engine.model.nu))
        self.trace = np.zeros((count, self.nstep + 1, size))
        self.warmstart = np.zeros((count, engine.model.nv))
        sensors = np.zeros((count, self.nstep, engine.model.nsensordata))
        self.rows = [
            (
                [engine.model],
                self.trace[i : i + 1, 0],
                self.control[i : i + 1],
                self.trace[i : i + 1, 1:],
                sensors[i : i + 1],
                self.warmstart[i : i + 1],
            )
            for i in range(count)
        ]
