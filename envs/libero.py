"""LIBERO: a Panda arm at tables, 130 tasks named by sentences. Liu et al. 2023, https://arxiv.org/abs/2306.03310.

The published protocol: the episode of seed i starts from the task's fixed state i modulo their number (50), the arm
rests for ten steps, then the policy has as many steps as the suite allows (`suites.LIBERO`). It runs in worker
processes, in an interpreter of its own where one was installed; this module is both the parent's side and the worker's.

Q is the size of the physics state: time, positions, velocities, as LIBERO's data sets hold them in `states`.
"""
# pyright: reportMissingImports=false
# (the suite may be absent)

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from ..errors import UserError, unknown
from . import isolated, libero_assets
from .keywords import build_task
from .libero_expert import act
from .libero_layout import LAYOUTS, Layout
from .libero_package import initial_states, instruction, package, simulators, task_name
from .process import HERE, Place
from .remote import RemoteCore, make_remote
from .robosuite import spaces_of
from .robosuite_build import actions, installed, osc, place, quicken
from .robosuite_pictures import Pictures
from .sparse import SPARSE, sparse_reward

SETTLE = 10
"""steps of rest before the first observation"""
REST = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""the arm stays, the gripper opens"""
DRAWS = 100
"""times that places of objects are drawn until none overlap"""
NEEDED = ("libero", "bddl", "robosuite", "matplotlib", "yaml")
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Libero:
    """Keywords of LIBERO."""

    suite: str
    """LIBERO's name of the suite, which the id implies"""
    number: int
    """the task's place in it, from 0, which the id implies"""
    layout: str = "robosuite"
    """whose names, numbers and pictures are observed. robosuite: `object` and `fixture` too, pictures upright; hdf5:
    as in LIBERO's HDF5 files, pictures upside down; lerobot: as in LIBERO's LeRobot data sets, pictures mirrored"""
    reward_type: str = "success"
    """success, penalty: see `sparse.py`"""
    terminate_on_success: bool = True
    """end the episode with the first success"""
    cameras: Names = ()
    """cameras whose pictures are observed; published data sets have `agentview` and `robot0_eye_in_hand`"""
    image_height: int = 128
    image_width: int = 128
    effects: bool = True
    """draw shadows and reflections, as published data sets do; without them drawing is faster"""
    rewards: ClassVar[Names] = tuple(SPARSE)

    def __post_init__(self) -> None:
        if self.reward_type not in SPARSE:
            raise unknown("reward_type of LIBERO", self.reward_type, SPARSE)
        if self.layout not in LAYOUTS:
            raise unknown("layout of LIBERO", self.layout, LAYOUTS)


class Tabletop(gym.Env):
    """One task in one process."""

    def __init__(self, task: Libero, assets: Path) -> None:
        root = package()
        name = task_name(root, task.suite, task.number)
        self.task = task
        self.instruction = instruction(name)
        self.starts = initial_states(root, task.suite, name)
        self.simulator = build(root / "bddl_files" / task.suite / f"{name}.bddl", assets)
        self.sites = self.simulator.sim.model._model.site_rgba.copy()
        self.camera = Pictures(task.effects)
        self.control_hz = float(self.simulator.control_freq)
        action_names, unit, self.action_space = actions(self.simulator)
        self.layout = Layout(task.layout, self.simulator)
        self.names, self.units = self.layout.names() | {"action": action_names}, {"action": unit}
        self._check_cameras()
        self.observation_space = spaces_of(self._observe(self.simulator._get_observations(force_update=True)))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start from the fixed state that a seed stands for, settled, or at `options["physics"]` (Q,) as it is."""
        start = (seed or 0) % len(self.starts)
        self._redraw(start)
        physics = (options or {}).get("physics")
        if physics is not None:
            seen = place(self.simulator, physics)
            self.simulator._post_process()  # the stove shows whether it burns
            return self._observe(seen), {}
        self.simulator.sim.set_state_from_flattened(self.starts[start])
        self.simulator.sim.forward()
        self.simulator._post_process()
        self.simulator._update_observables(force=True)  # as LIBERO does: numbers are those of 2 ms before a step's end
        for _ in range(SETTLE):
            seen, _, _, _ = self.simulator.step(np.array(REST))
        return self._observe(seen), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action of a twentieth of a second."""
        seen, _, _, _ = self.simulator.step(np.asarray(action, np.float64))
        success = bool(self.simulator._check_success())
        reward = float(sparse_reward(self.task.reward_type, np.asarray(success)))
        return self._observe(seen), reward, success and self.task.terminate_on_success, False, {"success": success}

    def expert(self) -> np.ndarray:
        """What the scripted expert does now, (A,)."""
        return act(self.task.suite, self.task.number, self.simulator._get_observations())

    def physics(self) -> np.ndarray:
        """Time, positions and velocities, (Q,)."""
        return self.simulator.sim.get_state().flatten()

    def render(self) -> np.ndarray:
        """The scene from the front."""
        return self.camera.draw(self.simulator.sim, "agentview", 640, 480)

    def close(self) -> None:
        """Free the renderers."""
        self.camera.close()
        self.simulator.close()

    def _redraw(self, start: int) -> None:
        """Everything that a fixed state does not hold (places of furniture, controllers, lights) from `start` alone."""
        from robosuite.utils.errors import RandomizationError

        random.seed(start)
        np.random.seed(start)
        self.simulator.sim.model._model.site_rgba[:] = self.sites
        for _ in range(DRAWS):
            try:
                self.simulator.reset()
                quicken(self.simulator)
                return
            except RandomizationError:  # two things would overlap
                continue
        raise UserError(f"LIBERO found no places for the objects of '{self.instruction}'")

    def _observe(self, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
        size = self.task.image_width, self.task.image_height
        drawn = {name: self.camera.draw(self.simulator.sim, name, *size) for name in self.task.cameras}
        return self.layout.observation(seen, drawn)

    def _check_cameras(self) -> None:
        model = self.simulator.sim.model._model
        known = [model.camera(i).name for i in range(model.ncam)]
        for name in self.task.cameras:
            if name not in known:
                raise unknown("camera of LIBERO", name, known)


def build(bddl: Path, assets: Path) -> Any:
    """LIBERO's simulator of a task, without pictures or a time limit.

    Raises:
        UserError: naming the asset that is missing.
    """
    kinds = simulators(assets)
    kind = re.search(r"\(problem (\w+)\)", bddl.read_text())
    np.random.seed(0)  # it draws while it builds; what is drawn here is never played
    try:
        return kinds[kind[1].lower() if kind else ""](
            bddl_file_name=str(bddl),
            robots=["Panda"],
            controller_configs=osc("OSC_POSE", True),
            initialization_noise=None,
            use_camera_obs=False,
            has_offscreen_renderer=False,
            control_freq=20,
            ignore_done=True,
            hard_reset=False,  # everything a reset leaves is restored in `reset`, a hundred times faster
        )
    except (FileNotFoundError, ValueError) as error:  # Python's of an XML file, MuJoCo's of a mesh or texture
        lost = re.search(re.escape(str(assets)) + r"/([^'\"]+?)['\":]", f"{error} {getattr(error, 'filename', '')}:")
        if lost is None:
            raise
        raise UserError(f"'{bddl.stem}' needs {lost[1]}, which {assets} lacks: {libero_assets.FIX}") from error


def open_libero(assets: str, **keywords: Any) -> gym.Env:
    """One environment, in a worker."""
    return Tabletop(build_task(Libero, "libero", {}, keywords | {"cameras": tuple(keywords["cameras"])}), Path(assets))


def make_libero(task: Libero, num_envs: int, **facts: Any) -> RemoteCore:
    """Build N slots in workers; `facts` are fields of EnvSpec that the table of environments knows."""
    where = interpreter(facts["id"])
    keywords = {**asdict(task), "assets": str(libero_assets.present())}
    return make_remote(f"{__name__}:{open_libero.__name__}", num_envs, keywords, facts, where)


def interpreter(env: str) -> Place:
    """LIBERO's own interpreter, else this one if it has LIBERO with a robosuite that fits.

    Raises:
        UserError: with the command that installs it.
    """
    own = isolated.interpreter("libero")
    if own.exists():
        return Place(own)
    try:
        fits = all(find_spec(module) for module in NEEDED) and installed() == (1, 4)
    except PackageNotFoundError:
        fits = False
    if not fits:
        raise UserError(f"{env} needs libero: noisepilot envs install libero")
    return HERE
