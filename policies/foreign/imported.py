"""What an import gives, and what imports share: names of an environment, columns, and loading without remainder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...shapes import Int
from ...spec import ArraySpec, EnvSpec, PolicySpec
from ..policy import Policy, PolicyConfig


@dataclass(frozen=True)
class Imported:
    """A policy from a file, and what to say of it."""

    policy: Policy
    source: str
    """for the policy's provenance"""
    said: list[str]
    """what was read and where from, line by line"""
    left: Mapping[str, int] = field(default_factory=dict)
    """what the policy has no place for: group of names, and how many tensors"""


@runtime_checkable
class Importable(Protocol):
    """A file that was recognised, and that holds all that a policy needs."""

    def load(self, env: EnvSpec | None) -> Imported:
        """The policy, of an environment where one is given.

        Raises:
            UserError: for what has no equal here, or does not fit the environment.
        """
        ...


def spec_of(
    config: PolicyConfig, obs: Mapping[str, ArraySpec], action: ArraySpec, env: EnvSpec | None
) -> tuple[PolicySpec, dict[str, str]]:
    """The specification of a policy with the file's observations, and what each is called in it.

    In an environment an observation has its own name, or that of the only one left of its shape.

    Raises:
        UserError: for an environment with other observations or actions.
    """
    if env is None:
        return config.spec(obs, action), {name: name for name in obs}
    names = {name: name for name in obs if name in env.obs}
    for name, array in obs.items():
        same = [n for n, other in env.obs.items() if n not in names.values() and other.shape == array.shape]
        if name not in names and len(same) == 1:
            names[name] = same[0]
    spec = config.spec({names.get(name, name): array for name, array in obs.items()}, action, env.control_hz)
    spec.check_env(env)
    known = {name: env.obs[name] for name in spec.obs}
    return replace(spec, obs=known, action=env.action, env=env.id, env_kwargs=env.kwargs), names


def describe(config: PolicyConfig, scheduler: str, source: str, unused: Iterable[str]) -> list[str]:
    """What is said of the settings of a policy that a scheduler of diffusers walked; `source` is where they stood."""
    lines = [
        f"read off {source}: {scheduler}, {config.sampler.steps} denoising steps, predicts {config.predicts}, "
        f"n_obs_steps {config.n_obs_steps}, n_action_steps {config.n_action_steps}",
        f"its horizon of {config.horizon + config.past_actions}: past_actions {config.past_actions}, then horizon "
        f"{config.horizon} from the current action on",
    ]
    if names := sorted(unused):
        lines.append(f"settings left out: {', '.join(names)}")
    return lines


def load_exactly(network: nn.Module, named: Mapping[str, Tensor]) -> None:
    """Fill a network with weights under its names.

    Raises:
        UserError: naming the first parameter that is missing, not known or of another shape.
    """
    expected = network.state_dict()
    for name in (*expected, *named):
        found, wanted = (tuple(d[name].shape) if name in d else "nothing" for d in (named, expected))
        if found != wanted:
            raise UserError(
                f"the weights do not fit the network: '{name}' is {found} in them, {wanted} in the network; "
                "give the settings they were trained with"
            )
    network.load_state_dict(named)


def columns_by_time(
    theirs: Sequence[tuple[str, int]], ours: Sequence[tuple[str, int]], times: int
) -> Int[Tensor, " F"]:
    """Where each feature that comes time by time lies among those that come observation by observation.

    Args:
        theirs: names and lengths of what one time holds.
        ours: the same in our order.
        times: T.
    """
    starts, total = {}, 0
    for name, length in ours:
        starts[name], total = total, total + times * length
    return torch.cat(
        [torch.arange(length) + starts[name] + t * length for t in range(times) for name, length in theirs]
    )


def tensors_in(value: Any, depth: int = 0) -> int:
    """How many tensors a nested value holds."""
    if isinstance(value, Tensor):
        return 1
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(tensors_in(item, depth + 1) for item in inside) if depth < 10 else 0
