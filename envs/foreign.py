"""What a worker knows of a Gymnasium environment: how to make it, and how its observations become named arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ..errors import UserError, unknown
from .registry import TABLE

SUCCESS = ("success", "is_success")
"""keys of `info` that say whether the task is done"""

Obs = dict[str, np.ndarray]


def open_env(env: str, kwargs: Mapping[str, Any]) -> gym.Env:
    """Make an environment from a registered id or from `package.module:factory`."""
    if ":" in env:
        return factory(env)(**kwargs)
    if env not in gym.registry and find_spec("gymnasium_robotics"):
        gym.register_envs(import_module("gymnasium_robotics"))
    if env not in gym.registry:
        raise unknown("environment", env, [*gym.registry, *TABLE])
    # Gymnasium's checker watches every step; ours is the probe below.
    return gym.make(env, **{"disable_env_checker": True, **kwargs})


def factory(path: str) -> Callable[..., gym.Env]:
    """The function that `package.module:factory` names."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"environment '{path}': {error}") from error
    except AttributeError as error:
        raise UserError(f"environment '{path}': module {module} has no '{name}'") from error


def leaves(space: spaces.Space, prefix: str = "") -> Iterator[tuple[str, spaces.Space]]:
    """Named parts of an observation space: inner dictionaries join their names with a dot."""
    if isinstance(space, spaces.Dict):
        for name, inner in space.items():
            yield from leaves(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix or ("image" if len(space.shape or ()) == 3 else "state"), space


def reader(env: str, space: spaces.Space) -> tuple[Mapping[str, spaces.Box], Callable[[Any], Obs]]:
    """The boxes of an observation space by name, and the function that reads an observation into them."""
    boxes = {}
    for name, leaf in leaves(space):
        if not isinstance(leaf, spaces.Box):
            raise UserError(f"{env}: observation '{name}' is {leaf}; only arrays (Box) can be used")
        boxes[name] = leaf

    def read(obs: Any) -> Obs:
        return {name: np.asarray(dig(obs, name), box.dtype) for name, box in boxes.items()}

    return boxes, read if isinstance(space, spaces.Dict) else lambda obs: {n: np.asarray(obs, b.dtype) for n, b in boxes.items()}


def dig(obs: Any, name: str) -> Any:
    """Follow a dotted name into inner dictionaries."""
    for part in name.split("."):
        obs = obs[part]
    return obs


def check_action(env: str, space: spaces.Space) -> spaces.Box:
    """Refuse what no continuous policy can produce."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UserError(f"{env} takes actions {space}; only flat continuous ones (Box) are supported")
    return space


def succeeded(info: Mapping[str, Any]) -> float | None:
    """Whether `info` reports success; None if it does not say."""
    found = [float(info[key]) for key in SUCCESS if key in info]
    return found[0] if found else None


def describe(env: str, made: gym.Env) -> dict[str, Any]:
    """Facts of an environment as JSON, found by a reset and a step."""
    boxes, _ = reader(env, made.observation_space)
    action = check_action(env, made.action_space)
    reports = [made.reset(seed=0)[1]]
    rest = np.clip(np.zeros(action.shape), action.low, action.high).astype(action.dtype)
    reports.append(made.step(rest)[4])
    return {
        "obs": {name: {"shape": box.shape, "dtype": np.dtype(box.dtype).str} for name, box in boxes.items()},
        "action": {"shape": action.shape, "low": action.low.tolist(), "high": action.high.tolist()},
        "max_steps": made.spec.max_episode_steps if made.spec else None,
        "control_hz": control_hz(made),
        "signals": ["success"] if any(succeeded(report) is not None for report in reports) else [],
    }


def control_hz(made: gym.Env) -> float:
    """Actions per second: from the simulator's step if it has one, else the rate of its pictures, else 0 (unknown)."""
    step = getattr(made.unwrapped, "dt", None)
    return 1 / step if isinstance(step, float) else float(made.metadata.get("render_fps") or 0)
