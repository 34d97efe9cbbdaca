"""What one would write without noisepilot: a plain network and the loop of a diffusers scheduler around it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..policies import CosinePath, Policy


class PlainNetwork(nn.Module):
    """Chunk, time and state through the same layers, with the same weights, at every step anew."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.network = copy.deepcopy(policy.network)

    def forward(self, x: Tensor, t: Tensor, state: Tensor) -> Tensor:
        """Chunk (B, H, A), time (B,) and state (B, F) to (B, H, A)."""
        return self.network(x, self.network.time_embedding(t), self.network.condition(state))


def diffusers_scheduler(policy: Policy) -> Any:
    """The scheduler that walks the policy's path: DDPM, DDIM, or Euler on a flow for one step.

    Raises:
        UserError: if diffusers is missing.
    """
    try:
        from diffusers.schedulers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
    except ImportError:
        raise UserError("diffusers is missing: pip install 'noisepilot[bench]'") from None
    path, sampler = policy.config.path, policy.config.sampler
    if not isinstance(path, CosinePath):
        return FlowMatchEulerDiscreteScheduler()
    bar = path.alpha_bar()
    betas = 1 - bar / [1.0, *bar[:-1]]
    make = DDIMScheduler if sampler.deterministic else DDPMScheduler
    scheduler = make(path.levels, trained_betas=betas, clip_sample=True, timestep_spacing="leading")
    scheduler.set_timesteps(sampler.steps)
    return scheduler


class DiffusersLoop:
    """Physical observation in, physical chunk out, by a diffusers scheduler."""

    def __init__(self, policy: Policy) -> None:
        self.network = PlainNetwork(policy)
        self.scheduler = diffusers_scheduler(policy)
        self.is_flow = not isinstance(policy.config.path, CosinePath)
        self.extra = {"use_clipped_model_output": True} if policy.config.sampler.deterministic else {}
        self.steps = policy.config.sampler.steps
        self.shape = policy.noise_shape[1:]
        self.low, self.high = -torch.ones(policy.feature_dim), torch.ones(policy.feature_dim)

    @torch.no_grad()
    def __call__(self, state: Tensor, x: Tensor | None = None) -> Tensor:
        """Chunks (B, H, A) for states (B, F); `x` is the initial noise, drawn if None."""
        x = torch.randn(len(state), *self.shape) if x is None else x
        state = 2 * (state - self.low) / (self.high - self.low) - 1
        action = self._flow(state, x) if self.is_flow else self._diffusion(state, x)
        low, high = self.low[: self.shape[1]], self.high[: self.shape[1]]
        return (action + 1) / 2 * (high - low) + low

    def _diffusion(self, state: Tensor, x: Tensor) -> Tensor:
        for t in self.scheduler.timesteps:
            output = self.network(x, t.expand(len(x)).to(x.dtype), state)
            x = self.scheduler.step(output, t, x, **self.extra).prev_sample
        return x

    def _flow(self, state: Tensor, x: Tensor) -> Tensor:
        self.scheduler.set_timesteps(self.steps)  # its counter starts anew
        for t in self.scheduler.timesteps:
            # It counts time from the action to the noise, so velocities have the other sign.
            time = 1 - t.expand(len(x)).to(x.dtype) / 1000
            x = self.scheduler.step(-self.network(x, time, state), t, x).prev_sample.clamp(-1, 1)
        return x


class PlainTraining:
    """A textbook loop of behaviour cloning: DataLoader, `add_noise`, AdamW as it comes."""

    def __init__(self, policy: Policy, state: Tensor, action: Tensor, batch: int) -> None:
        from torch.utils.data import DataLoader, TensorDataset

        self.network = PlainNetwork(policy)
        self.scheduler = diffusers_scheduler(policy)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=1e-6)
        self.loader = DataLoader(TensorDataset(state, action), batch, shuffle=True, drop_last=True)
        self.batches = iter(self.loader)

    def step(self) -> Tensor:
        """One gradient step; returns the loss."""
        state, action = self._next()
        t = torch.randint(len(self.scheduler.betas), (len(action),))
        noise = torch.randn_like(action)
        output = self.network(self.scheduler.add_noise(action, noise, t), t.to(action.dtype), state)
        loss = nn.functional.mse_loss(output, noise)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _next(self) -> list[Tensor]:
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches)
