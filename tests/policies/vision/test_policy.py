"""A policy that sees: pictures reach the action, are encoded once, and travel with everything a policy does."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.dql import METHODS
from noisepilot.errors import UserError
from noisepilot.policies import (
    MLP,
    MeanFlow,
    PolicyConfig,
    Shortcut,
    Stochastic,
    load_policy,
    save_policy,
)
from noisepilot.policies.gaussian import GaussianActor, GaussianConfig
from noisepilot.policies.vision import ResNet
from noisepilot.spec import ArraySpec, EnvSpec

from ..toys import generator, jolt
from .toys import CAMERA, VIT, encodings, scene, seeing


@pytest.fixture
def calls():
    """How many observations each call of an encoder saw."""
    with encodings() as counted:
        yield counted


def seen(calls):
    return [count for _, count in calls]


def test_a_policy_learns_what_only_the_picture_tells():
    policy = seeing(replace(VIT, shift=0))
    bc, g = BC(grad_steps=300, lr=3e-3), generator(1)
    state = bc.init(policy)
    for i in range(300):
        obs, action = scene(64, 100 + i)
        bc.update(state, obs, action, g)
    obs, action = scene(256, 7)
    error = (state.averaged().act(obs, generator=g) - action).square().mean()
    assert error < 0.3 * action.var()
    dark = (state.averaged().act({**obs, CAMERA: 0 * obs[CAMERA]}, generator=g) - action).square().mean()
    assert dark > 0.8 * action.var()


def test_an_observation_is_encoded_once_whatever_is_done_with_it(calls):
    policy = seeing()
    obs, _ = scene(3, 0)
    context = policy.encode(obs)
    assert seen(calls) == [3]
    noise = policy.noise(12, generator(), steps=True)
    chain = policy.sample(context.repeat(4), noise, stochastic=Stochastic(min_std=0.1))
    policy.score(context.repeat(4), chain, Stochastic(min_std=0.1))
    policy.loss(context.rows(slice(2)), torch.zeros(2, 1, 2), torch.rand(2), torch.randn(2, 1, 2))
    assert seen(calls) == [3]
    policy.act(obs)
    assert seen(calls) == [3, 3]


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_decision_encodes_once_whatever_its_steps(calls, steps):
    policy = seeing()
    policy.with_sampler(replace(policy.config.sampler, steps=steps)).act(scene(3, 0)[0])
    assert seen(calls) == [3]


@pytest.mark.parametrize("objective", [None, Shortcut(), MeanFlow()])
@pytest.mark.parametrize(("settings", "parts"), [({}, [8]), ({"draws": 8}, [8]), ({"micro_batch": 3}, [3, 3, 2])])
def test_a_gradient_step_encodes_the_batch_once(calls, objective, settings, parts):
    network = MLP(hidden=(8, 8, 8), time_dim=8, step_size=objective is not None)
    policy = seeing(network=network, **({"objective": objective} if objective else {}))
    bc = BC(grad_steps=1, **settings)
    state = bc.init(policy)
    before = [p.clone() for p in policy.network.encoder.parameters()]
    bc.update(state, *scene(8, 0), generator())
    assert seen(calls) == parts
    assert all(not torch.equal(p, old) for p, old in zip(policy.network.encoder.parameters(), before, strict=True))


@pytest.mark.parametrize(("encoder", "side", "whole"), [(VIT, 16, 16), (ResNet(16, 4), 40, 0)], ids=["vit", "resnet"])
def test_features_hold_pictures_then_states_and_save_and_load(tmp_path, encoder, side, whole):
    policy = seeing(encoder, times=2, side=side)
    obs, _ = scene(3, 0, times=2, side=side)
    context = policy.encode(obs)
    assert policy.sizes.whole == whole
    assert policy.feature_dim == context.features.shape[1] == 16 + 2 * 2
    assert context.features[:, -4:].equal(obs["state"].flatten(1))
    again = load_policy(save_policy(policy, tmp_path / "policy"))
    noise = policy.noise(3, generator())
    assert torch.equal(again.act(obs, noise), policy.act(obs, noise))


def test_a_camera_is_enough():
    policy = seeing(obs=())
    assert policy.act(scene(3, 0)[0]).shape == (3, 1, 2)


def test_a_frozen_prefix_keeps_its_own_eyes():
    policy = seeing()
    obs, _ = scene(3, 0)
    noise = policy.noise(3, generator(), steps=True)
    tuned = policy.split(2)
    with torch.no_grad():
        expected = policy.sample(policy.encode(obs), noise)
        assert torch.equal(tuned.sample(tuned.encode(obs), noise).x, expected.x)
        jolt(tuned.network.encoder)
        chain = tuned.sample(tuned.encode(obs).repeat(2).rows(slice(0, None, 2)), noise)
    assert torch.equal(chain.x[:, :3], expected.x[:, :3])
    assert not torch.allclose(chain.x[:, 3:], expected.x[:, 3:])
    assert torch.equal(tuned.act(obs, noise), chain.action)
    with pytest.raises(ValueError, match="by `encode`"):
        tuned.sample(tuned.context(policy.encode(obs).features), noise)


def test_augmentation_is_drawn_outside_and_never_in_acting():
    policy = seeing(replace(VIT, shift=4))
    obs, _ = scene(8, 0)
    draws = policy.draw_augmentation(8, generator())
    features = policy.encode(obs, draws).features
    assert torch.equal(policy.encode(obs, draws).features, features)
    assert not torch.equal(policy.encode(obs).features, features)
    noise = policy.noise(8, generator())
    assert torch.equal(policy.act(obs, noise), policy.act(obs, noise))


def test_pictures_and_encoders_belong_together():
    with pytest.raises(UserError, match=r"observation 'images.front' is a picture: choose an encoder"):
        seeing(encoder=None)
    config = PolicyConfig(encoder=VIT)
    with pytest.raises(UserError, match="needs a camera"):
        config.build(config.spec({"state": ArraySpec((2,))}, ArraySpec((2,))))
    with pytest.raises(UserError, match=r"camera 'images.front' is missing"):
        seeing().act({"state": torch.zeros(3, 1, 2)})


def test_what_would_not_learn_to_see_is_refused():
    policy = seeing()
    with pytest.raises(UserError, match=r"sees 'images.front', and a student beside it would not learn to see"):
        METHODS["fql"].init(policy, EnvSpec("toy", policy.spec.obs, policy.spec.action, 10.0, 20))
    with pytest.raises(UserError, match=r"no encoder for 'images.front'"):
        GaussianActor(GaussianConfig(), policy.spec)
