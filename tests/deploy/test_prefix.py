"""Committed actions at the runtime's interface: in a file, in torch and across a server."""

import dataclasses

import numpy as np
import pytest
import torch

from noisepilot.deploy.export import export
from noisepilot.deploy.in_torch import Guided, InTorch
from noisepilot.deploy.runtime import Policy, PolicyError, RemotePolicy
from noisepilot.deploy.server import Settings, serving
from noisepilot.errors import UserError

from .toys import ACTION, CONFIGS, OBS, draw_obs, make_policy


def knowing(name="shortcut4", most=2):
    """A policy with random weights that knows prefixes."""
    plain = make_policy(name)
    config = dataclasses.replace(CONFIGS[name], max_prefix=most)
    policy = config.build(config.spec(OBS, ACTION, control_hz=20.0))
    policy.normalizer.load_state_dict(plain.normalizer.state_dict())
    return policy.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(knowing(), tmp_path_factory.mktemp("prefix") / "p.onnx", provenance={})


def rows(policy, batch):
    obs = {name: value.numpy() for name, value in draw_obs(policy, batch).items()}
    actions = np.random.default_rng(0).normal(size=(batch, 2, 2)).astype(np.float32)
    return obs, policy.noise(batch, torch.Generator().manual_seed(2)).numpy(), actions


def test_the_file_and_torch_take_the_same_prefix(exported):
    policy, file = knowing(), Policy.load(exported)
    inside = InTorch(policy)
    assert file.spec.max_prefix == inside.spec.max_prefix == 2
    obs, noise, actions = rows(policy, 5)
    for prefix in (None, actions[:, :0], actions[:, :1], actions):
        ours, theirs = (p.act(obs, noise, prefix=prefix) for p in (inside, file))
        assert np.abs(ours - theirs).max() < 1e-5
        if prefix is not None:
            assert np.abs(theirs[:, : prefix.shape[1]] - prefix).max(initial=0) < 1e-5
    one = file.act({name: value[0] for name, value in obs.items()}, noise[0], prefix=actions[0])
    assert np.abs(one - theirs[0]).max() < 1e-5


def test_prefixes_that_do_not_fit_are_refused(exported):
    policy, file = knowing(), Policy.load(exported)
    obs, noise, actions = rows(policy, 1)
    obs, noise = {name: value[0] for name, value in obs.items()}, noise[0]
    for prefix, words in (
        (np.zeros((3, 2)), "prefix has 3 actions, the policy takes at most 2"),
        (np.zeros((1, 3)), r"prefix has shape \(1, 3\), expected \(1, 2\)"),
        (np.full((1, 2), np.nan), "prefix is not finite"),
        (0.5, r"prefix has shape \(\), expected \(0, 2\)"),
        ([[0.0, 1.0], [2.0]], "prefix is not an array of numbers"),
    ):
        with pytest.raises(PolicyError, match=words):
            file.act(obs, noise, prefix=prefix)
    with pytest.raises(PolicyError, match=r"this policy knows no prefix: train it with --policy\.max-prefix"):
        InTorch(make_policy("shortcut4")).act(obs, noise, prefix=actions[0])
    with pytest.raises(UserError, match=r"past_actions or max_prefix only"):
        export(policy, exported.with_suffix(".npz"), provenance={})


def test_a_server_passes_them_on(exported):
    pytest.importorskip("websockets", reason="pip install 'noisepilot[serve]'")
    file = Policy.load(exported)
    obs, noise, actions = rows(knowing(), 3)
    with serving(file, Settings(port=0, max_batch=2)) as address, RemotePolicy(address) as remote:
        for prefix in (None, actions[:, :1], actions):
            assert np.abs(remote.act(obs, noise, prefix=prefix) - file.act(obs, noise, prefix=prefix)).max() < 1e-5
        one = {name: value[0] for name, value in obs.items()}
        alone = remote.act(one, noise[0], prefix=actions[0])
        assert (alone == file.act(one, noise[0], prefix=actions[0])).all()


def test_a_flow_in_torch_is_guided():
    policy = make_policy("flow1").with_sampler(dataclasses.replace(CONFIGS["flow1"].sampler, steps=5))
    guided = Guided(policy)
    obs, noise, _ = rows(policy, 4)
    free = guided.act(obs, noise)
    assert np.abs(free - guided.act(obs, noise, prefix=np.zeros((4, 0, 2)))).max() == 0
    previous = np.roll(free, 1, 0)[:, :3]  # what another row would do
    bent = guided.act(obs, noise, prefix=previous, frozen=2)
    assert bent.shape == free.shape
    before, after = (np.abs(chunk[:, :2] - previous[:, :2]).mean() for chunk in (free, bent))
    assert after < 0.5 * before
    one = guided.act({name: value[1] for name, value in obs.items()}, noise[1], prefix=previous[1], frozen=2)
    assert np.abs(one - bent[1]).max() < 1e-5
    for wrong in (previous[:2], previous[..., :1], np.zeros((5, 2)), previous * np.nan, previous[0, 0]):
        with pytest.raises(PolicyError, match=r"expected \(m, 2\), m at most 4, of finite numbers"):
            guided.act(obs, noise, prefix=wrong, frozen=1)
    with pytest.raises(UserError, match="guidance needs a flow policy"):
        Guided(make_policy("ddpm20"))
