"""What environments, policies and exported files say of themselves; free of torch and numpy.

Shapes leave out batch and time: a state of eleven numbers has shape (11,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .errors import UserError, unknown

ROTATIONS = {"axis_angle": 3, "euler_xyz": 3, "quat_xyzw": 4, "quat_wxyz": 4, "6d": 6, "matrix": 9}
"""representation -> how many numbers it has; euler_xyz turns about the fixed x, then y, then z axis (radians), 6d is
the first two rows of the matrix (Zhou et al. 2019, https://arxiv.org/abs/1812.07035), matrix goes row by row"""
SCALED = "1 is "
"""beginning of the unit of numbers that a controller scales: neither metres nor radians"""


def arm_unit(steps: Sequence[float] | None, gripper: bool = True) -> str:
    """Unit of an arm's actions in Cartesian space: places, or movements of which 1 is `steps`, (m, maybe rad)."""
    arm = "m, axis-angle in rad"
    if steps is not None:
        arm = SCALED + " or ".join(f"{far:g} {unit}" for far, unit in zip(steps, ("m", "rad"), strict=False))
    return arm + ("; gripper: 1 closes" if gripper else "")


@dataclass(frozen=True)
class Convention:
    """How numbers move or place a robot; what is left empty is unknown, and agrees with anything."""

    mode: str = ""
    """`absolute`: where to go; `delta`: how far from where it is"""
    frame: str = ""
    """coordinates: `world`, `base`, `tool`, `joints`"""
    rotation: str = ""
    """one of ROTATIONS"""
    rotation_at: tuple[int, ...] = ()
    """first element of every rotation: two for two arms"""
    gripper: str = ""
    """what larger values do: `closes` or `opens`"""
    gripper_at: tuple[int, ...] = ()
    """elements that move a gripper"""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mode", self.mode, ("absolute", "delta")),
            ("frame", self.frame, ("world", "base", "tool", "joints")),
            ("rotation", self.rotation, tuple(ROTATIONS)),
            ("gripper", self.gripper, ("closes", "opens")),
        ):
            if value and value not in known:
                raise unknown(name, value, known)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Convention:
        """A convention from plain JSON values, as users and exported files write it.

        Raises:
            UserError: for a field that does not exist, or a value of another type.
        """
        known = {f.name: f.default for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in facts.items():
            if name not in known:
                raise unknown("convention of actions", name, known)
            listed = isinstance(value, (list, tuple)) and all(type(item) is int and item >= 0 for item in value)
            if not (listed if known[name] == () else isinstance(value, str)):
                kind = "a list of indices" if known[name] == () else "a word"
                raise UserError(f"the convention '{name}' must be {kind}, got {value!r}")
            values[name] = tuple(value) if known[name] == () else value
        return cls(**values)

    def filled(self, other: Convention) -> Convention:
        """What this one leaves empty, taken from another."""
        return Convention(**{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True)
class ArraySpec:
    """One named array: its shape, and where known the names, limits, unit and meaning of its elements."""

    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    low: tuple[float, ...] | None = None
    """smallest value per element in physical units; None: unbounded"""
    high: tuple[float, ...] | None = None
    unit: str = ""
    convention: Convention = Convention()

    def disagreement(self, other: ArraySpec) -> str:
        """What both know and know differently, "rotation axis_angle != 6d"; empty where they agree."""
        pairs = [("unit", self.unit, other.unit)]
        pairs += [(f.name, getattr(self.convention, f.name), getattr(other.convention, f.name)) for f in CONVENTIONS]
        return ", ".join(
            f"{name} {ours} != {theirs}" for name, ours, theirs in pairs if ours and theirs and ours != theirs
        )

    def filled(self, other: ArraySpec) -> ArraySpec:
        """With the unit and convention of another where this one has none."""
        return replace(self, unit=self.unit or other.unit, convention=self.convention.filled(other.convention))

    @property
    def dim(self) -> int:
        """Length of a flat array."""
        if len(self.shape) != 1:
            raise UserError(f"expected a flat array, got shape {self.shape}")
        return self.shape[0]


CONVENTIONS = fields(Convention)


def split_pictures(obs: Mapping[str, ArraySpec]) -> tuple[dict[str, ArraySpec], dict[str, ArraySpec]]:
    """Pictures, which are `images.<camera>` or a lone camera's `image` of shape (H, W, C), and everything else."""
    pictures = {
        name: array
        for name, array in obs.items()
        if (name == "image" or name.startswith("images.")) and len(array.shape) == 3
    }
    return pictures, {name: array for name, array in obs.items() if name not in pictures}


@dataclass(frozen=True)
class EnvSpec:
    """An environment's facts, so that no configuration repeats them."""

    id: str
    obs: Mapping[str, ArraySpec]
    action: ArraySpec
    control_hz: float
    """actions per second of simulated time"""
    max_steps: int
    """environment steps after which an episode is truncated"""
    signals: tuple[str, ...] = ()
    """named per-step outputs beside the reward, such as `success`"""
    instruction: str = ""
    """what to do, in words, where the task has such a sentence"""
    reference: tuple[float, float] | None = None
    """returns of a random and an expert policy that define a normalised score (D4RL)"""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """keyword arguments that rebuild this very environment"""
    device: str = "cpu"


@dataclass(frozen=True)
class PolicySpec:
    """What an actor consumes and produces, in physical units."""

    obs: Mapping[str, ArraySpec]
    action: ArraySpec
    horizon: int
    """H: actions predicted per decision"""
    n_action_steps: int
    """n <= H: actions executed per decision"""
    n_obs_steps: int = 1
    """T: observations the policy sees, the newest last"""
    control_hz: float = 0.0
    """0: unknown"""
    env: str = ""
    """environment id the policy was made for"""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """its keyword arguments"""
    max_prefix: int = 0
    """P: so many of a chunk's first actions may be committed already when it is made"""

    def __post_init__(self) -> None:
        if not 0 <= self.max_prefix < self.horizon:
            raise UserError(
                f"max_prefix {self.max_prefix} must lie between 0 and horizon - 1 = {self.horizon - 1}: "
                "a chunk that is committed whole leaves nothing to decide"
            )
        if self.horizon < self.n_action_steps:
            raise UserError(
                f"horizon {self.horizon} is shorter than n_action_steps {self.n_action_steps}: "
                "predict at least as many actions as are executed"
            )
        if min(self.n_action_steps, self.n_obs_steps) < 1:
            raise UserError("n_action_steps and n_obs_steps must be at least 1")

    def check_env(self, env: EnvSpec) -> None:
        """Refuse an environment whose observations or actions differ in shape, or in what their numbers mean.

        Observations that the policy does not see may be there.
        """
        seen, shown = ({k: v.shape for k, v in obs.items()} for obs in (self.obs, env.obs))
        for what, ours, theirs, fit in (
            ("observations", seen, shown, seen.items() <= shown.items()),
            ("actions", self.action.shape, env.action.shape, self.action.shape == env.action.shape),
        ):
            if not fit:
                made_for = f" (made for {self.env})" if self.env else ""
                named = "" if self.env else "; an imported policy takes an environment's names with import --env"
                raise UserError(
                    f"policy{made_for} and environment {env.id} differ in {what}: {ours} != {theirs}{named}"
                )
        require_agreement("policy", self.obs, self.action, f"environment {env.id}", env.obs, env.action)

    def check_data(self, obs: Mapping[str, ArraySpec], action: ArraySpec, source: str) -> None:
        """Refuse a dataset whose numbers mean something else than the policy's; shapes are checked on use."""
        require_agreement("policy", self.obs, self.action, source, obs, action)


def require_agreement(
    ours: str,
    obs: Mapping[str, ArraySpec],
    action: ArraySpec,
    theirs: str,
    other_obs: Mapping[str, ArraySpec],
    other_action: ArraySpec,
) -> None:
    """Refuse two sides whose numbers mean different things: units, delta or absolute, frames, rotations, grippers.

    Raises:
        UserError: naming both, the array and all differences.
    """
    pairs = [("actions", action, other_action)]
    pairs += [(f"observation '{name}'", obs[name], other_obs[name]) for name in sorted(obs.keys() & other_obs.keys())]
    for what, one, other in pairs:
        if difference := one.disagreement(other):
            advice = "convert the data (`data convert`), or correct the convention of the side that is wrong"
            raise UserError(f"{ours} and {theirs} differ in {what}: {difference}; {advice}")
