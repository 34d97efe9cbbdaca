"""robomimic's HDF5: `data/demo_i/{obs/<key>, actions, rewards, dones, states, next_obs/<key>}`, `mask/<name>`.

Mandlekar et al. 2021, https://arxiv.org/abs/2108.03298. Also LIBERO's files. Observations keep their names,
cameras become `observation.images.<camera>`; the simulator's states become `sim_state`, which is no observation.
A `done` may mean success, the end of the recording, or both: the last one says whether the task ended there,
earlier ones say nothing that can be relied on and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import from_dict, to_dict
from ..errors import UserError, unknown
from ..spec import ArraySpec, Convention
from .hdf5 import array, attributes, child, column, in_order, is_hdf5, opened
from .names import observation_key, renamed
from .robosuite import demonstrations, env_attrs, last_only
from .source import Recorded


def recognises(path: Path) -> bool:
    """HDF5 whose first demonstration has a group of observations."""
    if not is_hdf5(path):
        return False
    with opened(path) as file:
        names = demonstrations(file)
        return bool(names) and child(file, f"data/{names[0]}/obs") is not None


def open_source(path: Path, mask: str = "", actions: str = "actions") -> Robomimic:
    """Open a file.

    Args:
        path: the file.
        mask: episodes of this mask only, `train` or `valid` as a rule; empty: all.
        actions: the array of actions, such as `actions_abs`.

    Raises:
        UserError: where h5py is absent, the file is damaged, or has no such mask or actions.
    """
    with opened(path) as file:
        names = demonstrations(file)
        names = [name for name in names if name in _masked(file, mask)] if mask else names
        if not names:
            raise UserError(f"{path} has no demonstration of mask '{mask}'")
        first = file["data"][names[0]]
        if (found := column(first, actions)) is None or found.ndim != 2:
            raise UserError(f"{path}: '{first.name}' has no '{actions}' of one row per step: it has {', '.join(first)}")
        attrs = env_attrs(attributes(file["data"]), found.shape[1]) | {"source": path.name, "licence": ""}
        specs = from_dict(attrs["specs"]) | _obs_specs(first["obs"])
        if actions == "actions_abs":
            pose = Convention("absolute", "world", "axis_angle", (3,), "closes", (6,))
            specs["action"] = ArraySpec(
                found.shape[1:], convention=pose if found.shape[1] == 7 else Convention("absolute")
            )
    return Robomimic(path, attrs | {"specs": to_dict(specs)}, tuple(names), actions)


@dataclass(frozen=True, eq=False)
class Robomimic:
    """A file, or the part of it that a mask names."""

    path: Path
    attrs: Mapping[str, Any]
    names: tuple[str, ...]
    actions: str

    def __len__(self) -> int:
        return len(self.names)

    def episodes(self, start: int = 0) -> Iterator[Recorded]:
        """One demonstration at a time."""
        with opened(self.path) as file:
            for name in self.names[start:]:
                yield self._episode(file["data"][name])

    def _episode(self, group: Any) -> Recorded:
        obs, after = _observations(group, "obs"), _observations(group, "next_obs")
        data = {**obs, "action": array(group, self.actions)}
        steps = len(data["action"])
        if child(group, "states") is not None:
            data["sim_state"] = array(group, "states")
        if child(group, "rewards") is not None:
            data["next.reward"] = array(group, "rewards").reshape(-1)
        dones = array(group, "dones").reshape(-1) if child(group, "dones") is not None else np.zeros(steps)
        ended = bool(len(dones)) and bool(dones[-1])
        data["next.terminated"], data["next.truncated"] = last_only(steps) & ended, last_only(steps) & (not ended)
        return Recorded(data, {key: after[key][-1] for key in obs} if steps and obs.keys() <= after.keys() else {})


def _observations(group: Any, name: str) -> dict[str, np.ndarray]:
    found = child(group, name)
    if found is None:
        if name == "obs":
            raise UserError(f"'{group.name}' has no 'obs': it has {', '.join(group)}")
        return {}
    values = {key: array(found, key) for key in found}
    ours = renamed({key: observation_key(key, value.shape[1:], value.dtype) for key, value in values.items()})
    return {ours[key]: value for key, value in values.items()}


def _obs_specs(obs: Any) -> dict[str, ArraySpec]:
    # robosuite's quaternions end with w.
    found = {key: column(obs, key) for key in obs if key.endswith("_quat")}
    turned = Convention(rotation="quat_xyzw", rotation_at=(0,))
    return {
        observation_key(key, value.shape[1:], value.dtype): ArraySpec(value.shape[1:], convention=turned)
        for key, value in found.items()
        if value is not None and value.shape[1:] == (4,)
    }


def _masked(file: Any, mask: str) -> set[str]:
    import h5py

    group = child(file, "mask")
    known = in_order(group) if isinstance(group, h5py.Group) else []
    if mask not in known:
        raise unknown("mask", mask, known) if known else UserError(f"no mask '{mask}': the file has no masks")
    names = np.asarray(child(group, mask)).reshape(-1)
    return {name.decode() if isinstance(name, bytes) else str(name) for name in names}
