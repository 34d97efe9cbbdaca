"""Foreign environments as a worker sees them: made from a name, described, observations read into arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ..errors import UserError, unknown
from .registry import TABLE

SUCCESS = ("success", "is_success")
"""keys of `info` that say whether the task is done"""

Obs = dict[str, np.ndarray]


def register_installed() -> None:
    """Add the environments of installed packages that do not register themselves."""
    if find_spec("gymnasium_robotics"):
        gym.register_envs(import_module("gymnasium_robotics"))


def newest_ids() -> list[str]:
    """Registered ids, of each environment the newest version, without those that only raise an error."""
    register_installed()
    newest = {}
    for entry in gym.registry.values():
        usable = isinstance(entry.entry_point, str)  # withdrawn versions have a function that raises
        known = newest.get((entry.namespace, entry.name))
        if usable and (known is None or (entry.version or 0) > (known.version or 0)):
            newest[entry.namespace, entry.name] = entry
    return sorted(entry.id for entry in newest.values())


def open_env(env: str, kwargs: Mapping[str, Any]) -> gym.Env:
    """Make an environment from a registered id or from `package.module:factory`."""
    if ":" in env:
        return factory(env)(**kwargs)
    if env not in gym.registry:
        register_installed()
    if env not in gym.registry:
        near = get_close_matches(env, [*newest_ids(), *TABLE], n=1)
        raise unknown("environment", env, near) if near else UserError(f"there is no environment '{env}'")
    # Gymnasium's checker watches every step; ours is the probe below.
    return gym.make(env, **{"disable_env_checker": True, **kwargs})


def factory(path: str) -> Callable[..., gym.Env]:
    """The function that `package.module:factory` names."""
    module, _, name = path.partition(":")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"environment '{path}': {error}") from error
    if name not in vars(found):
        raise UserError(f"environment '{path}': module {module} has no '{name}'")
    return vars(found)[name]


def leaves(space: spaces.Space, prefix: str = "") -> Iterator[tuple[str, spaces.Space]]:
    """Named parts of an observation space: inner dictionaries join their names with a dot."""
    if isinstance(space, spaces.Dict):
        for name, inner in space.items():
            yield from leaves(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix or ("image" if len(space.shape or ()) == 3 else "state"), space


def boxes(env: str, space: spaces.Space) -> dict[str, spaces.Box]:
    """The arrays of an observation space by name."""
    named = dict(leaves(space))
    for name, leaf in named.items():
        if not isinstance(leaf, spaces.Box):
            raise UserError(f"{env}: observation '{name}' is {leaf}; only arrays (Box) can be used")
    return cast(dict[str, spaces.Box], named)


def read(obs: Any, into: Mapping[str, spaces.Box]) -> Obs:
    """An observation as named arrays."""
    if not isinstance(obs, Mapping):
        return {name: np.asarray(obs, box.dtype) for name, box in into.items()}
    return {name: np.asarray(dig(obs, name), box.dtype) for name, box in into.items()}


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
    parts = boxes(env, made.observation_space)
    action = check_action(env, made.action_space)
    reports = [made.reset(seed=0)[1]]
    names, units = stated(made, "names"), stated(made, "units")
    rest = np.clip(np.zeros(action.shape), action.low, action.high).astype(action.dtype)
    reports.append(made.step(rest)[4])

    def words(name: str) -> dict[str, Any]:
        return {"names": names.get(name, ()), "unit": units.get(name, "")}

    arrays = {name: {"shape": box.shape, "dtype": np.dtype(box.dtype).str} for name, box in parts.items()}
    limits = {"low": action.low.tolist(), "high": action.high.tolist()}
    return {
        "obs": {name: array | words(name) for name, array in arrays.items()},
        "action": {"shape": action.shape, **limits, **words("action")},
        "max_steps": max_steps(made),
        "control_hz": control_hz(made),
        "signals": signals(made, reports),
        "instruction": made.get_wrapper_attr("instruction") if made.has_wrapper_attr("instruction") else "",
        "physics": len(made.get_wrapper_attr("physics")()) if made.has_wrapper_attr("physics") else 0,
    }


def stated(made: gym.Env, attribute: str) -> Mapping[str, Any]:
    """A mapping by observation (or `action`) that an environment may state: `names` of elements, `units`."""
    found = made.get_wrapper_attr(attribute) if made.has_wrapper_attr(attribute) else {}
    return found if isinstance(found, Mapping) else {}


def max_steps(made: gym.Env) -> int | None:
    """The time limit that an environment was registered or wrapped with."""
    if made.spec and made.spec.max_episode_steps:
        return made.spec.max_episode_steps
    name = "_max_episode_steps"  # of `gymnasium.wrappers.TimeLimit`
    return made.get_wrapper_attr(name) if made.has_wrapper_attr(name) else None


def signals(made: gym.Env, reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Success, if `info` reports it, and the keys of `info` that the environment lists as its `signals`."""
    success = ["success"] if any(succeeded(report) is not None for report in reports) else []
    further = made.get_wrapper_attr("signals") if made.has_wrapper_attr("signals") else ()
    return success + [str(name) for name in further if name != "success"]


def control_hz(made: gym.Env) -> float:
    """Actions per second: as the environment says, else from its step, else from the rate of its pictures, else 0."""
    stated = getattr(made.unwrapped, "control_hz", None)
    if isinstance(stated, (int, float)):
        return float(stated)
    step = getattr(made.unwrapped, "dt", None)
    return 1 / step if isinstance(step, float) else float(made.metadata.get("render_fps") or 0)
