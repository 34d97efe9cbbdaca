"""The policy that is measured: DPPO's network for Gym (Hopper), random weights; and what it costs on paper.

Observation 11, chunk 4 x 3, residual MLP (512, 512, 512), time embedding 16; cosine path of 20 levels. One step
goes the straight path instead. Beside it two U-Nets, and one that sees. Shapes: B batch, K steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..policies import MLP, CosinePath, LinearPath, Policy, PolicyConfig, Sampler, UNet
from ..policies.activation import Activation
from ..policies.network import DenoisingMLP
from ..policies.vision import ViT
from ..spec import ArraySpec
from .limits import BYTES

OBS, ACTION = 11, 3


def make_policy(steps: int, activation: Activation = "relu") -> Policy:
    """DDPM for the 20 steps of training, DDIM for fewer, one Euler step of a flow for 1."""
    if steps == 1:
        return make_flow(1)
    return _policy(PolicyConfig(MLP(activation=activation), sampler=Sampler(steps, eta=1.0 if steps == 20 else 0.0)))


def make_flow(steps: int) -> Policy:
    """Euler steps of a rectified flow."""
    sampler = Sampler(steps, eta=0.0, clip_data=None, clip_mean=1.0)
    return _policy(PolicyConfig(path=LinearPath(), sampler=sampler, predicts="velocity"))


def make_unet(name: str, steps: int = 10) -> Policy:
    """DDIM of 100 levels by Diffusion Policy's U-Net for Push-T, or by DPPO's for robomimic's Square."""
    sampler = Sampler(steps, eta=0.0)
    if name == "pusht":
        config = PolicyConfig(UNet(), CosinePath(100), sampler, horizon=16, n_action_steps=8, n_obs_steps=2)
        return _policy(config, 20, 2)
    network = UNet((64, 128), time_dim=16, film_layers=3)
    return _policy(PolicyConfig(network, CosinePath(100), sampler), 23, 7)


def make_seeing(steps: int = 10, side: int = 96) -> Policy:
    """DDIM by an MLP that sees Push-T's camera through DPPO's small ViT, at two times."""
    config = PolicyConfig(path=CosinePath(100), sampler=Sampler(steps, eta=0.0), encoder=ViT())
    config = replace(config, horizon=16, n_action_steps=8, n_obs_steps=2)
    return _policy(config, 2, 2, {"images.camera": ArraySpec((side, side, 3))})


def _policy(
    config: PolicyConfig, obs: int = OBS, action: int = ACTION, pictures: dict[str, ArraySpec] | None = None
) -> Policy:
    torch.manual_seed(0)
    policy = Policy(config, config.spec({**(pictures or {}), "state": ArraySpec((obs,))}, ArraySpec((action,))))
    policy.normalizer.set("state", np.zeros(obs), np.ones(obs))
    policy.normalizer.set("action", np.zeros(action), np.ones(action))
    return policy.eval()


def observations(batch: int, policy: Policy | None = None) -> dict[str, Tensor]:
    """Random ones, for Hopper's state if no policy is given."""
    generator = torch.Generator().manual_seed(1)
    if policy is None:
        return {"state": torch.randn(batch, 1, OBS, generator=generator)}
    times = policy.spec.n_obs_steps
    pictures = {
        name: torch.randint(256, (batch, times, *spec.shape), generator=generator, dtype=torch.uint8)
        for name, spec in policy.pictures.items()
    }
    return {
        name: torch.randn(batch, times, *spec.shape, generator=generator) for name, spec in policy.flat_obs.items()
    } | pictures


@contextmanager
def calls(module: nn.Module) -> Iterator[list[int]]:
    """How many rows each call of a module gets inside the block, call by call."""
    counted: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        counted.append(len(inputs[0]))

    handle = module.register_forward_pre_hook(note)
    try:
        yield counted
    finally:
        handle.remove()


def weights(module: nn.Module) -> int:
    """Elements of the matrices that a call multiplies with."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def chain_weights(policy: Policy) -> int:
    """The same for one denoising step of an MLP, where time and observation have been folded away."""
    assert isinstance(policy.network, DenoisingMLP)
    trunk = policy.network.trunk
    first = trunk[0]
    assert isinstance(first, nn.Linear)
    chunk = policy.spec.horizon * policy.spec.action.dim
    return weights(trunk) - first.weight.numel() + first.out_features * chunk


def chain_cost(policy: Policy, batch: int) -> tuple[float, float, int]:
    """Operations of a whole chain, bytes of its weights, and how often they are read.

    operations = 2 B K W with W weights per step; bytes = 4 W, read K times.
    """
    steps, per_step = policy.config.sampler.steps, chain_weights(policy)
    return 2.0 * batch * steps * per_step, float(BYTES * per_step), steps


@torch.no_grad()
def unet_cost(policy: Policy) -> tuple[float, float, int]:
    """The same for a U-Net and one row: a weight of a convolution multiplies at every step of its level."""
    network, steps, found = policy.network, policy.config.sampler.steps, []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.get_parameter("weight").numel()
        found.append((weight, weight * (inputs if layer in doubling else (output,))[0].shape[2]))

    doubling = [m for m in network.modules() if isinstance(m, nn.ConvTranspose1d)]
    layers = [*doubling, *(m for m in network.modules() if isinstance(m, nn.Conv1d))]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    policy.act(observations(1, policy))
    for hook in hooks:
        hook.remove()
    held, operations = (sum(column) for column in zip(*found, strict=True))
    return 2.0 * operations, float(BYTES * held) / steps, steps
