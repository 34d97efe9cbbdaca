"""The official Diffusion-QL's losses, gradients and full updates, number by number.

Reproduced on purpose: the critic steps before the policy sees it; the order of the two critics in the Q term is drawn
per step; the slow policy moves at step 0, 5, ...; policy and critic are clipped separately.
"""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.dql import DQL
from noisepilot.policies import MLP, PolicyConfig, Sampler
from noisepilot.policies.critic import QMLP
from noisepilot.policies.path import VPPath

from ..policies.parity import Fixture
from ..policies.test_parity_dql import actor_weights, critic_weights
from . import toys_q
from .toys_q import Given, env_spec, errors, make, transitions


def setup(f: Fixture, dtype=torch.float64):
    width, steps, max_q = f.set("width"), f.set("T"), bool(f.set("max_q_backup"))
    config = PolicyConfig(
        MLP((width,) * 3, activation="mish", residual=False),
        VPPath(steps),
        Sampler(steps, eta=1.0, noise_clip=float("inf")),
        horizon=1,
        n_action_steps=1,
    )
    base = make(config, f.set("Do"), f.set("Da"), dtype)
    algo = DQL(
        critic=QMLP((width,) * 3, "mish"),
        eta=f.set("eta"),
        gamma=f.set("discount"),
        tau=f.set("tau"),
        lr=f.set("lr"),
        critic_lr=f.set("lr"),
        ema_decay=f.set("ema_decay"),
        ema_every=f.set("update_ema_every"),
        ema_start=0,
        max_grad_norm=f.set("grad_norm"),
        backup_candidates=10 if max_q else 1,
    )
    state = algo.init(base, env_spec(base))
    parts = {"actor": state.policy.network, "ema_model": state.average.network}
    parts |= {"critic": state.critic, "critic_target": state.target}
    for name, module in parts.items():
        toys_q.load(module, weights(f, name, dtype=dtype))
    batch = transitions(*(f.tensor(k, dtype) for k in ("state", "action", "reward", "next_state", "not_done")))
    return algo, state, batch, parts


def weights(f: Fixture, name: str, prefix: str = "w", dtype=torch.float64):
    return (critic_weights if "critic" in name else actor_weights)(f, name, prefix, dtype)


def chain_noise(f: Fixture, step: int, who: str, dtype):
    init, steps = (f.tensor(f"noise{step}.{who}_{part}", dtype) for part in ("init", "steps"))
    return torch.cat([init[:, None], steps.transpose(0, 1)], 1)[:, :, None]


def train_step(f, algo, state, batch, step, dtype=torch.float64):
    """One official step from recorded draws; gradients stay on the weights, after clipping."""
    noise = chain_noise(f, step, "next", dtype)
    metrics = algo.critic_step(state, batch, noise.unflatten(0, (len(batch), -1)))
    t = (algo_steps(state) - 1 - f.tensor(f"draw{step}.t")).double() / algo_steps(state)
    given = Given(t, f.tensor(f"noise{step}.bc", dtype)[:, None])
    state.policy.config = replace(state.policy.config, objective=given)
    order = torch.tensor([0, 1] if f.tensor(f"draw{step}.u") > 0.5 else [1, 0])
    noise = chain_noise(f, step, "actor", dtype)
    metrics |= algo.actor_step(state, batch, noise, order, torch.Generator())
    algo.follow(state)
    return metrics


def algo_steps(state) -> int:
    return state.policy.config.sampler.steps


def check_metrics(f, metrics, step, out, tolerance):
    names = {"bc_loss": "bc_loss", "ql_loss": "q_loss", "critic_loss": "critic_loss"}
    names |= {"critic_grad_norm": "critic_grad_norm", "actor_grad_norm": "policy_grad_norm"}
    for theirs, ours in names.items():
        assert metrics[ours].item() == pytest.approx(f.tensor(f"{out}.step{step}.{theirs}").item(), rel=tolerance)


@pytest.mark.parametrize("name", ["dql_train_q1_first", "dql_train_maxq"])
def test_training(shared_data, name):
    f = Fixture(shared_data, name)
    algo, state, batch, parts = setup(f)
    for step in range(f.set("n_steps")):
        metrics = train_step(f, algo, state, batch, step)
        check_metrics(f, metrics, step, "out64", 1e-9)
        if step == 0:
            for part in ("actor", "critic"):
                norm = f.tensor(f"out64.step0.{part}_grad_norm")
                clipped = min(1.0, (f.set("grad_norm") / (norm + 1e-6)).item())
                grads = {k: v * clipped for k, v in weights(f, part, "out64.grad").items()}
                assert errors(parts[part], grads, grad=True) < 1e-9
    for part, module in parts.items():
        assert errors(module, weights(f, part, "out64.after")) < 1e-8


@pytest.mark.parametrize("name", ["dql_train_q1_first", "dql_train_maxq"])
def test_float32(shared_data, name):
    f = Fixture(shared_data, name)
    algo, state, batch, _ = setup(f, torch.float32)
    check_metrics(f, train_step(f, algo, state, batch, 0, torch.float32), 0, "out32", 1e-4)
