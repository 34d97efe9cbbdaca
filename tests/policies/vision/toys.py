"""Policies that see, and what they see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from noisepilot.policies import MLP, LinearPath, PolicyConfig, Sampler
from noisepilot.policies.vision import Encoder, ViT
from noisepilot.spec import ArraySpec

from ..toys import generator

CAMERA = "images.front"
SIDE = 16
VIT = ViT(width=16, heads=2, features=16, shift=1)


def seeing(encoder=VIT, times=1, side=SIDE, obs=("state",), **changes):
    """A flow policy of one action with a camera."""
    torch.manual_seed(0)
    network = MLP(hidden=(32, 32, 32), time_dim=8)
    config = PolicyConfig(network, LinearPath(), Sampler(4, eta=0.0), "velocity", encoder=encoder)
    config = replace(config, horizon=1, n_action_steps=1, n_obs_steps=times, **changes)
    arrays = {CAMERA: ArraySpec((side, side, 3)), **{name: ArraySpec((2,)) for name in obs}}
    policy = config.build(config.spec(arrays, ArraySpec((2,))))
    for name in (*obs, "action"):
        policy.normalizer.set(name, np.zeros(2), np.ones(2))
    return policy


def scene(batch, seed, times=1, side=SIDE):
    """A bright square in the dark, its place in [-1, 1], and a state that says nothing."""
    g = generator(seed)
    corner = torch.randint(side - 3, (batch, 2), generator=g)
    rows = torch.arange(side)
    inside = (rows >= corner[..., None]) & (rows < corner[..., None] + 4)
    picture = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None, :, :, None].expand(-1, times, -1, -1, 3)
    state = torch.randn(batch, times, 2, generator=g)
    return {CAMERA: (255 * picture).byte(), "state": state}, (2 * corner / (side - 4) - 1)[:, None]


@contextmanager
def encodings() -> Iterator[list[tuple[Encoder, int]]]:
    """Every call of an encoder in the block, and how many observations it saw."""
    counted: list[tuple[Encoder, int]] = []

    def count(module, inputs):
        if isinstance(module, Encoder):
            counted.append((module, len(inputs[0])))

    handle = register_module_forward_pre_hook(count)
    try:
        yield counted
    finally:
        handle.remove()
