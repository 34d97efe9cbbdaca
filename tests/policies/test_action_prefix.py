"""A chunk goes on from what is committed already: learned in training, and by guidance of a flow's chain."""

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.distill import Distill
from noisepilot.errors import UserError
from noisepilot.policies import MLP, Transformer, UNet
from noisepilot.policies.action_prefix import ACTIONS, LENGTH
from noisepilot.policies.guidance import guidable, guided_chunk, prefix_weights

from .toys import generator, observe, tiny

MODES = 0.8 * torch.tensor([1.0, -1.0])


def begun(actions, length):
    """A prefix as entries of an observation."""
    return {ACTIONS: actions, LENGTH: torch.as_tensor(length)}


def two_ways(batch, g):
    """Chunks of four that stay up or down, whatever is seen."""
    obs = {"state": torch.randn(batch, 1, 3, generator=g)}
    side = MODES[torch.randint(2, (batch,), generator=g)][:, None, None]
    return obs, (side + 0.05 * torch.randn(batch, 4, 1, generator=g))


@pytest.fixture(scope="module")
def learned():
    """A flow that knows prefixes of up to two actions, cloned from chunks that stay up or down."""
    network = MLP((64, 64, 64), time_dim=8)
    policy = tiny(
        "flow", network=network, horizon=4, n_obs_steps=1, max_prefix=2, action_dim=1, dtype=torch.float32, scale=False
    )
    bc, g = BC(grad_steps=500, batch=256, lr=3e-3, ema_decay=0.9), generator(1)
    state = bc.init(policy)
    for _ in range(500):
        bc.update(state, *two_ways(256, g), g)
    return state.averaged()


def share_that_follows(policy):
    """How many chunks go on with the side on which they were begun, and how many go up without a beginning."""
    obs, chunk = two_ways(500, generator(5))
    noise = policy.noise(500, generator(6))
    with_prefix = policy.act(obs | begun(chunk[:, :2], [2] * 500), noise)
    assert (with_prefix[:, :2] - chunk[:, :2]).abs().max() < 1e-6
    follows = (with_prefix[:, 2:].sign() == chunk[:, :1].sign()).all(1).float().mean().item()
    up = (policy.act(obs, noise)[:, 0] > 0).float().mean().item()
    return follows, up


def test_a_clone_goes_on_with_what_is_committed(learned):
    follows, up = share_that_follows(learned)
    assert follows > 0.97
    assert 0.3 < up < 0.7


def test_so_does_its_one_step_student(learned):
    distill = Distill(fit=BC(grad_steps=600, lr=3e-3, ema_decay=0.9))
    torch.manual_seed(0)
    state, g = distill.init(learned), generator(2)
    with torch.no_grad():
        features = learned.encode(two_ways(2000, g)[0]).features
    for _ in range(600):
        distill.update(state, learned, features[torch.randint(2000, (256,), generator=g)], g)
    follows, up = share_that_follows(state.averaged())
    assert follows > 0.95
    assert 0.3 < up < 0.7


def test_a_policy_without_prefixes_spends_no_random_number_on_them():
    policy, g = tiny("flow", dtype=torch.float32), generator(3)
    assert policy.action_prefix.draw(torch.zeros(4, 3, 2), g) == {}
    assert g.get_state().equal(generator(3).get_state())


@pytest.mark.parametrize("kind", ["ddpm", "ddpm data", "flow", "flow data"])
@pytest.mark.parametrize("network", [None, UNet((8,), time_dim=8, groups=4)])
def test_only_what_is_committed_counts(kind, network):
    changes = {} if network is None else {"network": network}
    policy = tiny(kind, horizon=4, max_prefix=2, **changes)
    obs, noise = observe(policy), policy.noise(4, generator(2))
    free = policy.act(obs, noise)
    actions = torch.randn(4, 2, 2, generator=generator(3), dtype=policy.dtype)
    assert (policy.act(obs | begun(actions, [0] * 4), noise) - free).abs().max() == 0
    mixed = policy.act(obs | begun(actions, [0, 1, 2, 1]), noise)
    assert (mixed[0] - free[0]).abs().max() < 1e-12
    for row, count in ((1, 1), (2, 2), (3, 1)):
        assert (mixed[row, :count] - actions[row, :count]).abs().max() < 1e-12
        assert (mixed[row, count:] - free[row, count:]).abs().max() > 1e-6
    other = actions.clone()
    other[1, 1] += 1  # beyond what is committed
    assert (policy.act(obs | begun(other, [0, 1, 2, 1]), noise) - mixed).abs().max() == 0


def test_what_cannot_be_committed_is_refused():
    with pytest.raises(UserError, match=r"max_prefix 3 must lie between 0 and horizon - 1 = 2"):
        tiny(max_prefix=3)
    with pytest.raises(UserError, match="belong to all times: set max_prefix to 0"):
        tiny(network=Transformer(), max_prefix=1)
    policy = tiny(max_prefix=2)
    with pytest.raises(UserError, match=r"a prefix is prefix_actions \(B, 2, 2\) and prefix_len \(B,\), got"):
        policy.act(observe(policy) | begun(torch.zeros(4, 1, 2), [1] * 4))


# Guidance


def test_weights_fall_from_what_is_committed_to_where_the_chunk_before_ends():
    weights = prefix_weights(8, 5, 2).tolist()
    c = [0.75, 0.5, 0.25]
    soft = [x * (torch.tensor(x).exp().item() - 1) / (torch.e - 1) for x in c]
    assert weights == pytest.approx([1, 1, *soft, 0, 0, 0], abs=1e-6)


def test_a_chain_that_is_not_pulled_is_the_plain_one():
    policy = tiny("flow", horizon=4)
    obs, noise = observe(policy), policy.noise(4, generator(2))
    context = policy.encode(obs)
    plain = policy.normalizer.normalize("action", policy.act(obs, noise))
    none = torch.zeros(4, 0, 2, dtype=policy.dtype)
    with torch.no_grad():
        assert (guided_chunk(policy, context, noise, none, 0) - plain).abs().max() < 1e-12


def test_guidance_pulls_a_flow_to_the_side_that_is_played(learned):
    obs, chunk = two_ways(500, generator(5))
    noise = learned.noise(500, generator(6))
    with torch.no_grad():
        context = learned.encode(obs)
        follows = [
            (guided_chunk(learned, context, noise, chunk[:, :3], 2, beta=beta).sign() == chunk[:, :1].sign())
            .all(1)
            .float()
            .mean()
            for beta in (0.0, 5.0)
        ]
    assert follows[0] < 0.7
    assert follows[1] > 0.9


@pytest.mark.parametrize("kind", ["ddpm", "flow data"])
def test_only_flows_are_guided(kind):
    with pytest.raises(UserError, match="guidance needs a flow policy"):
        guidable(tiny(kind))
