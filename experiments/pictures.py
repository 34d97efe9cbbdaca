"""What a report draws of a policy at work, kept in pictures.json: paths, a film strip, a denoising chain.

    {"schema": 1,
     "trajectories": {name: {"env", "walls": [[x, y, width, height]...],
                             "episodes": [{"seed", "success", "return", "states": {obs: (L+1, D)}}...]}},
     "films":        {name: {"seed", "frames": [data URI...], "times_s": [...], "note", "walls",
                             "episode"}},
     "chains":       {name: {"t": (S+1,), "names": (A,), "x": (B, S+1, H, A)}}}

`name` says which policy ("base", "tuned", "student"). States and chains are in physical units. A film without
frames could not be rendered; `note` says why, and the report draws the states of `episode` instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..envs.core import Step
from ..envs.maze import MAPS, Maze, named_map
from ..errors import UserError
from ..files import atomic_write
from ..policies.actor import Actor
from ..policies.policy import ACTION, Policy
from ..spec import EnvSpec
from .evaluate import Env, evaluate
from .ledger import Ledger, read_json
from .png import data_uri

SCHEMA = 1
KINDS = ("trajectories", "films", "chains")
DIGITS = 4
"""decimals kept of states and actions"""


@runtime_checkable
class Drawable(Env, Protocol):
    """An environment that can show itself."""

    def render(self, slot: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture of one slot, (height, width, 3) uint8."""
        ...


def record_trajectories(actor: Actor, env: Env, seeds: Iterable[int]) -> dict[str, Any]:
    """Run one episode per seed and keep the flat observations of every step."""
    seeds = list(seeds)
    recorder = _Recorder(env)
    ledger = evaluate(actor, recorder, seeds)
    return {
        "env": env.spec.id,
        "walls": walls(env.spec),
        "episodes": [_episode(recorder.states[seed], ledger, i) for i, seed in enumerate(seeds)],
    }


def record_film(actor: Actor, env: Drawable, seed: int, *, frames: int = 8, width: int = 240) -> dict[str, Any]:
    """Render one episode and keep `frames` pictures, evenly spaced from the first to the last."""
    recorder = _Recorder(env, lambda: env.render(0, width, width * 3 // 4))
    ledger = evaluate(actor, recorder, [seed])
    kept = np.unique(np.linspace(0, len(recorder.pictures) - 1, frames).round().astype(int))
    pictures = [recorder.pictures[i] for i in kept] if recorder.pictures else []
    return {
        "seed": seed,
        "frames": [data_uri(picture) for picture, _ in pictures],
        "times_s": [round(steps / env.spec.control_hz, 3) for _, steps in pictures],
        "note": recorder.note,
        "walls": walls(env.spec),
        "episode": _episode(recorder.states[seed], ledger, 0),
    }


def record_chain(policy: Policy, obs: Mapping[str, Tensor], noise: Tensor) -> dict[str, Any]:
    """Denoise chunks for observations name -> (B, T, ...) and keep every latent, in physical units.

    Args:
        policy: a policy, opened up.
        obs: B equal observations show how noises fan out; B = 1 shows one chain.
        noise: (B, K+1, H, A).
    """
    with torch.no_grad():
        chain = policy.sample(policy.encode(obs), noise, start=0)
        x = policy.normalizer.denormalize(ACTION, chain.x)
    return {
        "t": policy.transitions().t.round(6).tolist(),
        "names": _action_names(policy.spec.action.names, x.shape[-1]),
        "x": _rounded(x.cpu().numpy()),
    }


def save_pictures(
    path: str | Path,
    name: str,
    *,
    trajectories: Mapping[str, Any] | None = None,
    film: Mapping[str, Any] | None = None,
    chain: Mapping[str, Any] | None = None,
) -> None:
    """Add what was recorded of policy `name` to the pictures.json at `path`; the same name is replaced."""
    content = load_pictures(path)
    for kind, value in zip(KINDS, (trajectories, film, chain), strict=True):
        if value is not None:
            content[kind][name] = value
    atomic_write(path, json.dumps(content, separators=(",", ":")) + "\n")


def load_pictures(path: str | Path) -> dict[str, Any]:
    """Read pictures.json; without the file, an empty one.

    Raises:
        UserError: if another version wrote it.
    """
    if not Path(path).is_file():
        return {"schema": SCHEMA} | {kind: {} for kind in KINDS}
    content = read_json(Path(path))
    if content.get("schema") != SCHEMA:
        raise UserError(f"{path} was written by another version of noisepilot: record it again")
    return content


class _Recorder:
    """An environment that keeps the states of every episode and, with `draw`, a picture after every chunk."""

    def __init__(self, env: Env, draw: Callable[[], np.ndarray] | None = None) -> None:
        self.env, self.draw = env, draw
        self.spec, self.num_envs = env.spec, env.num_envs
        self.states: dict[int, dict[str, list[Any]]] = {}
        self.slots: dict[int, dict[str, list[Any]]] = {}
        self.pictures: list[tuple[np.ndarray, int]] = []  # with the environment steps before each
        self.steps, self.note = 0, ""

    def reset(self, seeds: Sequence[int], slots: Sequence[int] | None = None) -> Mapping[str, Tensor]:
        obs = self.env.reset(seeds, slots)
        for i, slot in enumerate(range(self.num_envs) if slots is None else slots):
            self.slots[slot] = {name: [value[i].tolist()] for name, value in obs.items() if value.dim() == 2}
            # Idle slots repeat the first seed: the episode that counts is the first one.
            self.states.setdefault(seeds[i], self.slots[slot])
        self._picture()
        return obs

    def step(self, action: Tensor) -> Step:
        step = self.env.step(action)
        executed = step.valid.sum(1).tolist()
        for slot, states in self.slots.items():
            for name, values in states.items():
                values.extend(step.obs[name][slot, : executed[slot]].tolist())
        self.steps += executed[0]
        self._picture()
        return step

    def _picture(self) -> None:
        if self.draw and not self.note:
            try:
                self.pictures.append((self.draw(), self.steps))
            except UserError as error:  # drawing is a luxury: the report says why there is none
                self.note = str(error)


def walls(spec: EnvSpec) -> list[list[float]]:
    """Rectangles x, y, width, height of the walls of a point maze; none elsewhere."""
    named = re.fullmatch(r"PointMaze_(\w+?)(_Dense)?-v\d+", spec.id)
    cells = spec.kwargs.get("maze_map") or (named and MAPS.get(named[1]) and named_map(named[1]))
    if not cells:
        return []
    maze = Maze(tuple(tuple(row) for row in cells))
    rows, columns = maze.shape
    blocked = [(i, j) for i in range(rows) for j in range(columns) if not maze.is_free((i, j))]
    return [[x - 0.5, y - 0.5, 1.0, 1.0] for x, y in maze.centers(np.array(blocked)).tolist()]


def _episode(states: Mapping[str, list[Any]], ledger: Ledger, row: int) -> dict[str, Any]:
    return {
        "seed": int(ledger.seed[row]),
        "success": bool(ledger.success[row] == 1),
        "return": round(float(ledger.returns[row]), DIGITS),
        "states": {name: _rounded(np.array(values)) for name, values in states.items()},
    }


def _action_names(names: tuple[str, ...], dim: int) -> list[str]:
    return list(names) or [f"action[{i}]" for i in range(dim)]


def _rounded(values: np.ndarray) -> list[Any]:
    return np.asarray(values, dtype=np.float64).round(DIGITS).tolist()
