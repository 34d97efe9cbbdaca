"""What off-policy algorithms learn from: transitions between decisions, in a ring.

Shapes: B transitions, T observations, n actions per decision, A action dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError
from ..shapes import Bool, Float, Int


@dataclass(frozen=True)
class Experience:
    """B transitions from one decision to the next; one that is truncated ends at its true final observation."""

    obs: Mapping[str, Tensor]
    """name -> (B, T, ...), physical units"""
    action: Float[Tensor, "B m A"]
    """what the algorithm acted with, in the normalised units of its own action space: m = n actions, or one that stands
    for n (noise)"""
    reward: Float[Tensor, "B n"]
    """per environment step; 0 where none was executed"""
    length: Int[Tensor, " B"]
    """executed environment steps, at most n"""
    terminated: Bool[Tensor, " B"]
    """nothing follows: no bootstrap. Truncated transitions are not terminated"""
    next_obs: Mapping[str, Tensor]
    """name -> (B, T, ...)"""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """name -> (B, ...): what the algorithm's `act` returned beside the action"""

    def __len__(self) -> int:
        return len(self.terminated)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Experience:
        """Apply `fn` to every tensor."""
        return from_columns({name: fn(value) for name, value in columns(self).items()})

    def to(self, device: torch.device) -> Experience:
        """On another device."""
        return self.map(lambda value: value.to(device))


_PLAIN = ("action", "reward", "length", "terminated")
_GROUPS = ("obs", "next_obs", "extras")


def columns(experience: Experience) -> dict[str, Tensor]:
    """Every tensor by its path: `action`, `obs/state`, ..."""
    flat = {name: getattr(experience, name) for name in _PLAIN}
    groups = {group: getattr(experience, group) for group in _GROUPS}
    return flat | {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}


def from_columns(tensors: Mapping[str, Tensor]) -> Experience:
    """The inverse of `columns`."""
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for path, value in tensors.items():
        group, slash, name = path.partition("/")
        if slash:
            groups[group][name] = value
    action, reward, length, terminated = (tensors[name] for name in _PLAIN)
    return Experience(groups["obs"], action, reward, length, terminated, groups["next_obs"], groups["extras"])


def join(parts: Sequence[Experience]) -> Experience:
    """One after the other; extras that some part lacks are left out."""
    tables = [columns(part) for part in parts]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return from_columns({name: torch.cat([table[name] for table in tables]) for name in names})


@runtime_checkable
class Source(Protocol):
    """Where transitions are drawn from."""

    def __len__(self) -> int: ...

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Experience:
        """`batch` transitions, drawn with replacement."""
        ...


class Replay:
    """A ring of the newest `capacity` transitions on `device`, allocated when the first ones come.

    Observations keep their type but for float64, which becomes float32: policies read no more.
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu") -> None:
        if capacity < 1:
            raise UserError(f"a replay of {capacity} transitions holds nothing: give it room for at least 1")
        self.capacity, self.device = capacity, torch.device(device)
        self.total = 0
        """transitions ever added; the oldest are overwritten"""
        self._tensors: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(self, experience: Experience) -> None:
        """Append B transitions.

        Raises:
            UserError: for tensors that do not fit the earlier ones.
        """
        new = stored(columns(experience))
        if not self._tensors:
            self._allocate(new)
        require_same(new, self._tensors)
        count = len(experience)
        at = torch.arange(self.total, self.total + count, device=self.device) % self.capacity
        keep = slice(max(0, count - self.capacity), None)  # of more than the ring holds, the newest
        for name, value in new.items():
            self._tensors[name][at[keep]] = value[keep].to(self.device)
        self.total += count

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Experience:
        """`batch` transitions, drawn uniformly with replacement; `generator` lives on the replay's device."""
        rows = draw(len(self), batch, generator, self.device)
        return from_columns({name: value.index_select(0, rows) for name, value in self._tensors.items()})

    def tree(self) -> dict[str, Any]:
        """What `load` needs; the tensors are views, valid until the next `add`."""
        return {"total": self.total, "tensors": {name: value[: len(self)] for name, value in self._tensors.items()}}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Restore what `tree` returned.

        Raises:
            UserError: if it comes from a replay of another capacity.
        """
        filled = {name: len(value) for name, value in tree["tensors"].items()}
        if any(rows != min(tree["total"], self.capacity) for rows in filled.values()):
            raise UserError(f"the saved replay does not fit a capacity of {self.capacity}: resume with the same one")
        self.total = tree["total"]
        self._allocate(tree["tensors"])
        for name, value in tree["tensors"].items():
            self._tensors[name][: len(self)] = value.to(self.device)

    def _allocate(self, like: Mapping[str, Tensor]) -> None:
        shapes = {name: (self.capacity, *value.shape[1:]) for name, value in like.items()}
        try:
            self._tensors = {
                name: torch.empty(shape, dtype=like[name].dtype, device=self.device) for name, shape in shapes.items()
            }
        except RuntimeError:
            size = self.capacity * sum(value[0].numel() * value.element_size() for value in like.values()) / 1e9
            raise UserError(
                f"a replay of {self.capacity} transitions takes {size:,.1f} GB of memory: lower algo.replay"
            ) from None


def mixed(online: Source, demos: Source, batch: int, share: float, generator: torch.Generator | None) -> Experience:
    """A batch of which `share` is drawn from demonstrations (RLPD, Ball et al. 2023: one half).

    Raises:
        UserError: for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise UserError(f"a share of {share} from demonstrations is impossible: choose one from 0 to 1")
    from_demos = round(batch * share)
    counts = ((online, batch - from_demos), (demos, from_demos))
    return join([source.sample(count, generator) for source, count in counts if count])


def draw(size: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Int[Tensor, " B"]:
    """Rows drawn with replacement.

    Raises:
        UserError: from nothing.
    """
    if size == 0:
        raise UserError("the replay is empty: add transitions before drawing from it")
    return torch.randint(size, (batch,), generator=generator, device=device)


def stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the types that a replay keeps.

    Raises:
        UserError: for a reward that is not a number: every critic that learns from it is lost.
    """
    if not tensors["reward"].isfinite().all():
        raise UserError("a reward is NaN or infinite: look for the cause in the environment or the data")
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in tensors.items()}


def require_same(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> None:
    """Refuse other names, types or shapes of a row than before.

    Raises:
        UserError: naming the first that differs.
    """
    for name in sorted(new.keys() | old.keys()):
        now, before = ((t[name].dtype, tuple(t[name].shape[1:])) if name in t else "absent" for t in (new, old))
        if now != before:
            raise UserError(f"replay: '{name}' is {now} but was {before} before: give one run transitions of one kind")
