"""A one-dimensional target with two modes: a tiny policy learns both, and nothing between them."""

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.policies import MLP, CosinePath, LinearPath, Policy, PolicyConfig, Sampler

from .toys import generator, tiny

NETWORK = MLP((64, 64, 64), time_dim=8, activation="relu")
KINDS = {
    "diffusion": PolicyConfig(NETWORK, CosinePath(10), Sampler(10)),
    "ddim": PolicyConfig(NETWORK, CosinePath(10), Sampler(5, eta=0.0)),
    "flow": PolicyConfig(NETWORK, LinearPath(), Sampler(10, eta=0.0), "velocity"),
    "flow of data": PolicyConfig(NETWORK, LinearPath(), Sampler(10, eta=0.0), "data"),
}


def two_modes(config: PolicyConfig, steps: int = 800) -> Policy:
    """Behaviour cloning of actions near -0.7 and, twice as often, 0.7."""
    fields = {name: getattr(config, name) for name in ("network", "path", "sampler", "predicts")}
    policy = tiny(
        **fields,
        horizon=1,
        n_action_steps=1,
        n_obs_steps=1,
        obs={"state": 1},
        action_dim=1,
        dtype=torch.float32,
        scale=False,
    )
    bc = BC(grad_steps=steps, lr=1e-2, lr_final=1e-4, ema_decay=0.95)
    state, g = bc.init(policy), generator()
    obs = {"state": torch.zeros(256, 1, 1)}
    for _ in range(steps):
        side = (torch.rand(256, 1, 1, generator=g) < 2 / 3).float() * 1.4 - 0.7
        bc.update(state, obs, side + 0.03 * torch.randn(256, 1, 1, generator=g), g)
    return state.averaged()


@pytest.mark.parametrize("kind", KINDS)
def test_both_modes_and_nothing_between(kind):
    policy = two_modes(KINDS[kind])
    action = policy.act({"state": torch.zeros(4000, 1, 1)}, generator=generator(1)).flatten()
    near = [((action - mode).abs() < 0.3).float().mean().item() for mode in (-0.7, 0.7)]
    assert 0.25 < near[0] < 0.42
    assert 0.58 < near[1] < 0.75
    assert (action.abs() < 0.3).float().mean() < 0.1
