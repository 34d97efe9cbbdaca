"""An ensemble in one network equals its members one by one."""

import pytest
import torch
from torch import nn

from noisepilot.errors import UserError
from noisepilot.policies.critic import QMLP

from .toys import generator, jolt

B, F, A = 7, 4, 3


def member(q, e):
    """Member e as plain torch layers."""
    layers = []
    for i, stacked in enumerate(q.layers):
        linear = nn.Linear(*stacked.weight.shape[1:]).double()
        linear.weight.data, linear.bias.data = stacked.weight[e].T.detach().clone(), stacked.bias[e, 0].detach().clone()
        layers.append(linear)
        if i == len(q.layers) - 1:
            break
        act = {"mish": nn.Mish(), "relu": nn.ReLU(), "tanh": nn.Tanh(), "gelu": nn.GELU("tanh")}[q.config.activation]
        tail = [act]
        if q.config.layer_norm != "none":
            eps = 1e-5 if q.config.layer_norm == "before" else 1e-6
            norm = nn.LayerNorm(linear.out_features, eps).double()
            norm.weight.data, norm.bias.data = (p[e, 0].detach().clone() for p in q.norms[i].parameters())
            tail.insert(0 if q.config.layer_norm == "before" else 1, norm)
        layers += tail
    return nn.Sequential(*layers)


@pytest.mark.parametrize("layer_norm", ["none", "before", "after"])
@pytest.mark.parametrize("activation", ["mish", "relu", "tanh", "gelu"])
@pytest.mark.parametrize("ensemble", [1, 2, 5])
def test_equals_separate_networks(layer_norm, activation, ensemble):
    torch.manual_seed(0)
    q = QMLP((8, 6), activation, ensemble, layer_norm).build(F, 2 * A).double()
    jolt(q)
    g = generator(1)
    features, action = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((B, F), (B, 2, A)))
    action.requires_grad_()
    members = [member(q, e) for e in range(ensemble)]
    x = torch.cat([features, action.flatten(1)], 1)
    theirs = torch.stack([net(x).squeeze(1) for net in members])
    ours = q(features, action)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    pull = torch.randn(ensemble, B, generator=g, dtype=torch.float64)
    ours_grads = torch.autograd.grad((ours * pull).sum(), [action, *q.parameters()])
    parameters = [p for net in members for p in net.parameters()]
    theirs_grads = torch.autograd.grad((theirs * pull).sum(), [action, *parameters])
    torch.testing.assert_close(ours_grads[0], theirs_grads[0], rtol=0, atol=1e-12)
    count = sum(p.numel() for p in q.parameters())
    assert count == sum(p.numel() for p in parameters)
    norms = [sum(g.square().sum() for g in grads[1:]) for grads in (ours_grads, theirs_grads)]
    torch.testing.assert_close(*norms, rtol=1e-10, atol=0)


def test_members_begin_as_torch_layers_do():
    torch.manual_seed(0)
    q = QMLP((300,), ensemble=3).build(100)
    for stacked, fan_in in zip(q.layers, (100, 300), strict=True):
        bound, weight = fan_in**-0.5, stacked.get_parameter("weight")
        for values in stacked.parameters():
            assert values.abs().max() <= bound
        assert abs(weight.std() - bound / 3**0.5) < 0.05 * bound
        assert (weight[0] - weight[1]).abs().max() > 0.1 * bound


def test_a_state_value_needs_no_action():
    v = QMLP((8,), ensemble=2).build(F)
    assert v(torch.zeros(B, F)).shape == (2, B)


def test_an_ensemble_has_members():
    with pytest.raises(UserError, match="ensemble must be at least 1"):
        QMLP(ensemble=0)
