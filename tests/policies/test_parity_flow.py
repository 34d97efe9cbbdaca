"""Flow networks, targets and samples against the official numbers of ReinFlow."""

from dataclasses import replace

import pytest
import torch

from noisepilot.policies import Sampler, TimeDraw
from noisepilot.policies.objective import Points

from ..algos.test_parity_reinflow import close, policy_of
from .parity import Fixture


@pytest.mark.parametrize("name", ["flow_mlp", "shortcut_mlp", "shortcut_concat_mlp"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_networks(shared_data, name, dtype):
    f = Fixture(shared_data, f"reinflow_{name}")
    net = policy_of(f, dtype).network
    net.load_state_dict(f.weights("net", dtype=dtype))
    out, tolerance = ("out64", 1e-10) if dtype == torch.float64 else ("out32", 2e-6)
    times = net.time_embedding(f.tensor("t", dtype), f.tensor("d", dtype))
    condition = net.condition(f.tensor("state", dtype).flatten(1))
    close(times, f.tensor(f"{out}.time_emb"), tolerance)
    close(condition, f.tensor(f"{out}.cond_emb"), tolerance)
    close(net(f.tensor("x", dtype), times, condition), f.tensor(f"{out}.velocity"), tolerance)


def filled(f: Fixture):
    policy = policy_of(f)
    policy.network.load_state_dict(f.weights("net"))
    return policy, policy.context(f.tensor("state").flatten(1))


def test_flow_matching(shared_data):
    f = Fixture(shared_data, "reinflow_reflow_target")
    policy, context = filled(f)
    loss = policy.loss(context, f.tensor("x1"), f.tensor("draw.t"), f.tensor("draw.x0")).mean()
    close(loss, f.tensor("out64.loss"))
    loss.backward()
    for key, parameter in policy.network.named_parameters():
        close(parameter.grad, f.weights("net", prefix="out64.grad")[key], 1e-8)
    z = f.tensor("noise.z")[:, None]
    for steps in f.set("sample_K"):
        walked = policy.with_sampler(replace(policy.config.sampler, steps=steps)).sample(context, z).action
        close(walked, f.tensor(f"out64.sample_K{steps}"), 1e-10)


def test_time_draws(shared_data):
    f = Fixture(shared_data, "reinflow_reflow_target")
    normal, beta = f.tensor("draw.normal"), f.tensor("draw.beta")
    close(torch.sigmoid(TimeDraw("logit_normal").mean + TimeDraw().std * normal), f.tensor("out64.t_logitnormal"))
    close(TimeDraw("beta").scale * (1 - beta), f.tensor("out64.t_beta"))


def test_shortcut(shared_data):
    f = Fixture(shared_data, "reinflow_shortcut_target")
    policy, context = filled(f)
    level = 2.0 ** f.tensor("draw.d_base").double()
    t = torch.cat([f.tensor("draw.t_idx").double() / level, f.tensor("draw.t_fm")])
    d = torch.cat([1 / level, torch.zeros(9, dtype=torch.float64)])
    close(t, f.tensor("out64.t"))
    close(d, f.tensor("out64.d"))
    noise = torch.cat([f.tensor("draw.x0_sc"), f.tensor("draw.x0_fm")])
    loss = policy.config.objective.loss_at(policy, context, f.tensor("x1"), Points(t, noise, d)).mean()
    close(loss, f.tensor("out64.loss"))
    loss.backward()
    for key, parameter in policy.network.named_parameters():
        close(parameter.grad, f.weights("net", prefix="out64.grad")[key], 1e-8)
    z = f.tensor("noise.z")[:, None]
    for steps in f.set("sample_K"):
        sampler = Sampler(steps, 0.0, None, clip_mean=1.0)
        close(policy.with_sampler(sampler).sample(context, z).action, f.tensor(f"out64.sample_K{steps}"), 1e-10)
