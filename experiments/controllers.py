"""What may act while demonstrations are collected: saved policies, plain-array actors, scripts, chance.

A controller sees observations name -> (N, T, ...) and one random generator per slot, and returns actions
(N, n, A) in physical units. N slots, T history, n executed actions, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from ..errors import UserError
from ..policies.actor import Actor, Stateful
from ..spec import EnvSpec
from .actors_npz import load_actor_npz

Obs = Mapping[str, np.ndarray]
Generators = Sequence[np.random.Generator]


@runtime_checkable
class Controller(Protocol):
    """Anything that acts, with all its randomness given from outside."""

    @property
    def n_obs_steps(self) -> int:
        """T: observations it looks at, the newest last."""
        ...

    def act(self, obs: Obs, rng: Generators) -> np.ndarray:
        """Observations name -> (N, T, ...) to actions (N, n, A); `rng`: one generator per slot."""
        ...

    def check_env(self, spec: EnvSpec) -> None:
        """Raise a UserError for an environment it cannot act in."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Actions drawn uniformly between the environment's limits."""

    spec: EnvSpec
    n_obs_steps: int = 1

    def act(self, obs: Obs, rng: Generators) -> np.ndarray:
        """See `Controller`."""
        low, high = np.array(self.spec.action.low), np.array(self.spec.action.high)
        return np.stack([generator.uniform(low, high) for generator in rng])[:, None]

    def check_env(self, spec: EnvSpec) -> None:
        """Needs finite limits."""
        low, high = spec.action.low, spec.action.high
        if low is None or high is None or not np.isfinite([low, high]).all():
            raise UserError(f"{spec.id} has no finite action limits: random actions cannot be drawn")


@dataclass(frozen=True)
class PolicyController:
    """A saved policy, its noise drawn from each episode's own generator."""

    actor: Actor
    device: torch.device

    @property
    def n_obs_steps(self) -> int:
        """What the policy was made for."""
        return self.actor.spec.n_obs_steps

    def act(self, obs: Obs, rng: Generators) -> np.ndarray:
        """See `Controller`."""
        shape = self.actor.noise_shape
        noise = np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in rng])
        tensors = {name: torch.from_numpy(value).to(self.device) for name, value in obs.items()}
        with torch.no_grad():
            action = self.actor.act(tensors, noise=torch.from_numpy(noise).to(self.device))
        return action[:, : self.actor.spec.n_action_steps].cpu().numpy()

    def check_env(self, spec: EnvSpec) -> None:
        """Compare shapes."""
        self.actor.spec.check_env(spec)


@dataclass(frozen=True)
class Disturbed:
    """A controller whose actions get Gaussian noise, so that the data covers more than one path."""

    controller: Controller
    std: float
    """in units of the action"""

    @property
    def n_obs_steps(self) -> int:
        """That of the controller inside."""
        return self.controller.n_obs_steps

    def act(self, obs: Obs, rng: Generators) -> np.ndarray:
        """See `Controller`."""
        action = self.controller.act(obs, rng)
        return action + self.std * np.stack([generator.standard_normal(action.shape[1:]) for generator in rng])

    def check_env(self, spec: EnvSpec) -> None:
        """Ask the controller inside."""
        self.controller.check_env(spec)


@runtime_checkable
class HasExpert(Protocol):
    """Environments that come with scripted experts, as a `RemoteCore` does."""

    def expert(self) -> np.ndarray:
        """What they do now in every slot, (N, 1, A)."""
        ...


@dataclass(frozen=True)
class Expert:
    """The environment's own expert: it looks at the simulator instead of the observation."""

    core: HasExpert
    n_obs_steps: int = 1

    def act(self, obs: Obs, rng: Generators) -> np.ndarray:
        """See `Controller`."""
        return self.core.expert()

    def check_env(self, spec: EnvSpec) -> None:
        """The expert is the environment's own; one that has none says so when it is asked."""


def make_controller(name: str, spec: EnvSpec, noise: float = 0.0, core: object = None) -> Controller:
    """The controller called `waypoint`, `expert` or `random`, or the actor saved at a path.

    Args:
        name: `waypoint` (PointMaze), `expert` (suites with scripted ones), `random`, a policy folder or run, or
            `file.npz[:snapshot]`.
        spec: the environment to act in.
        noise: factor on an .npz actor's own deviation; for others a deviation in units of the action.
        core: the environments that an `expert` belongs to.

    Raises:
        UserError: for a name that is nothing of these, or an actor of another environment.
    """
    if noise < 0:
        raise UserError(f"noise {noise} must not be negative")
    controller = _expert(spec, noise, core) if name == "expert" else _load(name, spec, noise)
    controller.check_env(spec)
    return controller


def _expert(spec: EnvSpec, noise: float, core: object) -> Controller:
    if not isinstance(core, HasExpert):
        raise UserError(f"{spec.id} has no scripted expert: give --actor waypoint, random or a policy")
    return Disturbed(Expert(core), noise) if noise else Expert(core)


def _load(name: str, spec: EnvSpec, noise: float) -> Controller:
    if name == "random":
        if noise:
            raise UserError("random actions take no noise: leave --noise out")
        return Uniform(spec)
    if name == "waypoint":
        from ..envs.waypoint import WaypointController, maze_of

        return WaypointController(maze=maze_of(spec), noise=noise)
    if ".npz" in name:
        return load_actor_npz(name, noise)
    from ..policies.storage import default_device, load_policy

    actor = load_policy(name)
    if isinstance(actor, Stateful):
        raise UserError(f"{name} acts on what it did before and cannot collect: give its base, or distill a policy")
    policy = PolicyController(actor, default_device())
    return Disturbed(policy, noise) if noise else policy
