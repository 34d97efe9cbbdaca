"""Whole chains against diffusers' schedulers, an implementation by others."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from noisepilot.policies import CosinePath, Sampler, Transitions
from noisepilot.policies.sampler import denoise

from .toys import generator

SHAPE = (4, 3, 2)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def scheduler(kind, path: CosinePath, clip: float | None, predicts: str, dtype: torch.dtype):
    """With our betas, in the given precision (diffusers itself always makes float32 tables)."""
    bar = path.alpha_bar()
    other = kind(
        path.levels,
        trained_betas=1 - bar / np.append(1.0, bar[:-1]),
        timestep_spacing="leading",
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
        prediction_type={"eps": "epsilon", "data": "sample"}[predicts],
    )
    assert np.abs(other.alphas_cumprod.numpy() - bar).max() < 1e-6
    other.alphas_cumprod = torch.from_numpy(bar).to(dtype)
    return other


def network(dtype: torch.dtype):
    """A smooth function of latent and diffusion index that leaves [-1, 1] now and then."""
    mix = torch.randn(SHAPE[1:], generator=generator(5), dtype=torch.float64).to(dtype)
    return lambda index, x: 1.2 * torch.sin(1.5 * x + mix + 0.3 * index) + 0.4 * x


def ours(path, sampler, predicts, noise):
    transitions = Transitions(path, predicts, sampler)
    index = path.time_input(transitions.t[:-1])
    net = network(noise.dtype)
    return denoise(lambda k, x: net(int(index[k]), x), transitions, noise)


def draws(steps: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(SHAPE[0], steps + 1, *SHAPE[1:], generator=generator(2), dtype=torch.float64).to(dtype)


def agree(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.dtype == b.dtype
    assert ((a - b).abs().max() / b.abs().max().clamp(min=1)).item() < TOLERANCE[a.dtype]


# Unbounded data made from eps divide by alpha = 1e-3 at the noisiest level: there float32 agrees with nothing.
BOUNDS = [(p, c, d) for p in ("eps", "data") for c in (1.0, 0.5, None) for d in TOLERANCE]
BOUNDS.remove(("eps", None, torch.float32))


@pytest.mark.parametrize(("predicts", "clip", "dtype"), BOUNDS)
@pytest.mark.parametrize(("levels", "steps"), [(1, 1), (20, 20), (20, 5), (50, 7), (100, 100)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim(predicts, clip, dtype, levels, steps, eta):
    path, noise = CosinePath(levels), draws(steps, dtype)
    other = scheduler(DDIMScheduler, path, clip, predicts, dtype)
    other.set_timesteps(steps)
    x, net = noise[:, 0], network(dtype)
    for k, t in enumerate(other.timesteps.tolist()):
        kwargs: Any = {"variance_noise": noise[:, k + 1]} if eta else {}
        x = other.step(net(t, x), t, x, eta, use_clipped_model_output=True, **kwargs, return_dict=False)[0]
    agree(ours(path, Sampler(steps, eta, clip, noise_clip=100.0), predicts, noise), x)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("predicts", ["eps", "data"])
@pytest.mark.parametrize("clip", [1.0, 0.5])
@pytest.mark.parametrize(("levels", "steps"), [(20, 20), (20, 5), (50, 7), (100, 100)])
def test_ddpm(dtype, predicts, clip, levels, steps):
    path = CosinePath(levels)
    other = scheduler(DDPMScheduler, path, clip, predicts, dtype)
    other.set_timesteps(steps)
    g, net = generator(3), network(dtype)
    x = draws(0, dtype)[:, 0]
    noise = [
        x,
        *(torch.randn(SHAPE, generator=g, dtype=dtype) for _ in range(steps - 1)),
        torch.zeros(SHAPE, dtype=dtype),
    ]
    g = generator(3)  # it draws the same noise itself
    for t in other.timesteps.tolist():
        x = other.step(net(t, x), t, x, generator=g, return_dict=False)[0]
    agree(ours(path, Sampler(steps, 1.0, clip, noise_clip=100.0), predicts, torch.stack(noise, 1)), x)
