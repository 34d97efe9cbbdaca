"""Engine that keeps MuJoCo's data of every slot alive and steps it in Python threads.

For tasks that read what a state alone does not hold: contact forces, and frames of bodies, which MuJoCo
leaves a physics step behind the positions. A thread runs one slot's whole chunk before it takes the next.

N slots, M running, n actions per chunk, A action dimensions, Q state size.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from collections.abc import Iterator, Mapping

import mujoco
import numpy as np

from ..errors import UserError
from .core import State
from .physics import INTEGRATION
from .task import Read
from .threads import Crew


class DataEngine:
    """Moves slots by whole chunks; `state` (N, Q) and `frames` (N, ...): where each is and what it showed."""

    def __init__(self, model: mujoco.MjModel, frame_skip: int, num_envs: int, reads: Mapping[str, Read]) -> None:
        self.model = model
        self.frame_skip = frame_skip
        self.data = [mujoco.MjData(model) for _ in range(num_envs)]
        reads = {"qpos": ("qpos", None), "qvel": ("qvel", None), **reads}
        self.views = [{name: view(data, read) for name, read in reads.items()} for data in self.data]
        self.frames = {name: np.zeros((num_envs, *v.shape)) for name, v in self.views[0].items()}
        self.state = np.zeros((num_envs, mujoco.mj_stateSize(model, INTEGRATION)))
        self.crew = Crew(num_envs)
        self.models = [model] * self.crew.size
        """one per thread; all the same object unless a slot's model is its own"""
        self.trace = np.zeros((0, 0, 0))
        self.film: dict[str, np.ndarray] = {}

    def start(self, slot: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """As Gymnasium starts: clean data and a forward pass."""
        data = self.data[slot]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, data)
        mujoco.mj_getState(self.model, data, self.state[slot], INTEGRATION)
        for name, value in self.views[slot].items():
            self.frames[name][slot] = value

    def advance(self, slots: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
        """Run actions (M, n, A); return frames (M, n + 1, ...), the present one first."""
        running, n, _ = action.shape
        self.trace = np.empty((running, n, self.state.shape[1]))
        self.film = {name: np.empty((running, n + 1, *v.shape[1:])) for name, v in self.frames.items()}
        for name, frames in self.film.items():
            frames[:, 0] = self.frames[name][slots]

        def work(worker: int, rows: Iterator[int]) -> None:
            for row in rows:
                self._run(self.models[worker], row, int(slots[row]), action[row])

        self.crew.run(work, running)
        return self.film

    def settle(self, slots: np.ndarray, last: np.ndarray) -> None:
        """Keep the state and frame after action `last` (M,) of the chunk just run."""
        rows = np.arange(len(slots))
        self.state[slots] = self.trace[rows, last]
        for name, frames in self.film.items():
            self.frames[name][slots] = frames[rows, last + 1]

    def frame(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        """The present frame of slots."""
        return {name: value[slots] for name, value in self.frames.items()}

    def physics(self, slot: int) -> tuple[np.ndarray, int]:
        """A slot's MuJoCo state vector and its mjtState bits."""
        return self.state[slot], INTEGRATION

    def get_state(self, slots: np.ndarray) -> State:
        """Physics, and the frame with its lagging arrays."""
        return {"physics": self.state[slots]} | {f"frame.{k}": v for k, v in self.frame(slots).items()}

    def set_state(self, slots: np.ndarray, state: State) -> None:
        """Continue from arrays of `get_state`."""
        self.state[slots] = state["physics"]
        for name, value in self.frames.items():
            value[slots] = state[f"frame.{name}"]
        for slot in slots:
            mujoco.mj_setState(self.model, self.data[slot], self.state[slot], INTEGRATION)

    def close(self) -> None:
        """Free the threads."""
        self.crew.close()

    def _run(self, model: mujoco.MjModel, row: int, slot: int, actions: np.ndarray) -> None:
        data = self.data[slot]
        record = [(self.film[name][row], value) for name, value in self.views[slot].items()]
        for k, action in enumerate(actions):
            data.ctrl[:] = action
            mujoco.mj_step(model, data, self.frame_skip)
            mujoco.mj_rnePostConstraint(model, data)  # contact forces, as Gymnasium asks for them
            mujoco.mj_getState(model, data, self.trace[row, k], INTEGRATION)
            for frames, value in record:
                frames[k + 1] = value


def view(data: mujoco.MjData, read: Read) -> np.ndarray:
    """The live array of MjData that a task reads."""
    attribute, place = read
    array = getattr(data, attribute)
    if place is None:
        return array
    kind = "site" if attribute.startswith("site_") else "body"
    try:
        return array[getattr(data, kind)(place).id]
    except (KeyError, IndexError) as error:
        raise UserError(f"the model has no {kind} {place!r}") from error
