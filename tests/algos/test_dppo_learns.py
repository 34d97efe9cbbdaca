"""DPPO on a bandit: two modes, one of them rewarded."""

import pytest
import torch

from noisepilot.algos.dppo import DPPO

from ..policies.test_modes import KINDS, two_modes
from ..policies.toys import generator
from .toys import CRITIC, rollout_of


def share_of_positive(policy) -> float:
    action = policy.act({"state": torch.zeros(2000, 1, 1)}, generator=generator(1))
    return (action > 0).float().mean().item()


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_mass_moves_to_the_better_mode(kind):
    base = two_modes(KINDS[kind], 400)
    algo = DPPO(finetune_steps=10, clip=0.1, actor_lr=1e-3, epochs=5, minibatch=1000, critic=CRITIC, target_kl=0.1)
    state, g = algo.init(base), generator()
    before = share_of_positive(base)
    assert 0.5 < before < 0.8
    for _ in range(20):
        # The rarer mode pays; every decision is an episode.
        reward = lambda action: (action[:, 0, 0] < 0).float()  # noqa: E731
        algo.update(state, rollout_of(algo, state, g, decisions=4, slots=128, reward=reward, ends=(1.1, 0.0)), g)
    assert share_of_positive(state.policy) < 0.05
    action = state.policy.act({"state": torch.zeros(2000, 1, 1)}, generator=generator(1))
    assert action.median() == pytest.approx(-0.7, abs=0.25)  # still the base's mode, not somewhere else
    assert share_of_positive(base) == before
