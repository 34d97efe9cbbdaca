"""The official PPODiffusion.loss, its gradients, and reward scaling with GAE, number by number (float64)."""

import pytest
import torch

from noisepilot.algos.decisions import Decisions
from noisepilot.algos.dppo import DPPO, Pairs
from noisepilot.algos.returns import Ends, RewardScale, gae
from noisepilot.policies import CriticMLP, Sampler, Stochastic

from ..policies.parity import Fixture
from ..policies.test_parity_dppo import close, policy_of

LOSSES = [
    "ddim5of100_const",
    "ddim5of100_robomimic",
    "ddim5of20_k3_const",
    "ddim5of20_k3_robomimic",
    "ddpm20_const",
    "ddpm20_k20_const",
    "ddpm20_k20_robomimic",
    "ddpm20_options",
    "ddpm20_robomimic",
]


def algorithm(f: Fixture, horizon: int) -> DPPO:
    options = f.arrays
    return DPPO(
        finetune_steps=f.set("Kft"),
        explore=Stochastic(1.0, f.set("min_sampling_std"), f.set("min_logprob_std")),
        gamma_denoise=f.set("gamma_denoising"),
        clip=f.set("clip_coef"),
        clip_noisiest=f.set("clip_base"),
        clip_rate=f.set("clip_rate"),
        value_clip=f.set("clip_vloss") if "set.clip_vloss" in options else None,
        advantage_quantiles=(f.set("adv_lo"), f.set("adv_hi")) if "set.adv_lo" in options else None,
        critic=CriticMLP(f.set("critic_dims")),
    )


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients(shared_data, name):
    f = Fixture(shared_data, f"dppo_loss_{name}")
    ddim = bool(f.set("use_ddim"))
    steps = f.set("ddim_steps") if ddim else f.set("K")
    base = policy_of(f, Sampler(steps, eta=0.0 if ddim else 1.0), f.set("K"))
    algo = algorithm(f, f.set("reward_horizon"))
    state = algo.init(base)
    state.policy.network.load_state_dict(f.weights("actor_ft"))
    state.critic.load_state_dict(f.weights("critic"))

    # Every pair of the fixture has an observation of its own, so decisions and pairs are the same rows here.
    count, kft, executed = 48, f.set("Kft"), f.set("reward_horizon")
    i = f.tensor("denoising_inds")
    rows = torch.arange(count)
    latents = torch.zeros(count, kft + 1, *f.tensor("chains_prev").shape[1:], dtype=torch.float64)
    latents[rows, i], latents[rows, i + 1] = f.tensor("chains_prev"), f.tensor("chains_next")
    old = torch.zeros(count, kft, executed, f.set("Da"), dtype=torch.float64)
    old[rows, i] = f.tensor("oldlogprobs")[:, :executed]
    decisions = Decisions(
        {"features": f.tensor("state").flatten(1), "latents": latents, "log_prob": old},
        advantage=f.tensor("advantages"),
        returns=f.tensor("returns"),
        value=f.tensor("oldvalues"),
    )
    credit = algo.credit(decisions.advantage, i, kft)
    batch = Pairs(decisions, rows, i, credit, algo.clip_range(kft)[i])

    state.zero_grad()
    loss, sums = algo.policy_loss(state, batch)
    loss.mean().backward()
    value_loss = algo.value_loss(state, decisions, torch.ones(count, dtype=torch.float64))

    # Terms of order 1 nearly cancel, and the official run keeps float32 factors at its advantages even in float64.
    assert abs(loss.mean().item() - f.tensor("out64.pg_loss").item()) < 1e-8
    close(value_loss, f.tensor("out64.v_loss"))
    assert abs(sums["approx_kl"].item() / count - f.tensor("out64.approx_kl").item()) < 1e-10
    close(sums["clip_fraction"] / count, f.tensor("out64.clipfrac"), 1e-6)  # a float32 mean
    close(sums["ratio"] / count, f.tensor("out64.ratio_mean"))
    for module, part in ((state.policy.network, "actor_ft"), (state.critic, "critic")):
        grads = f.weights(part, prefix="out64.grad")
        for key, parameter in module.named_parameters():
            close(parameter.grad, grads[key], 1e-7)


def test_reward_scale_and_gae(shared_data):
    """The official block ignores truncation ("leak"); episode starts restart the scaler's returns."""
    f = Fixture(shared_data, "dppo_gae")
    scale = RewardScale(gamma=f.set("reward_scaler_gamma"))
    for rollout in (1, 2):
        reward, value = f.tensor(f"reward{rollout}"), f.tensor(f"values{rollout}")
        # The official code takes the last value through float32.
        last = f.tensor(f"last_value{rollout}").float().double().T
        ends = Ends(f.tensor(f"terminated{rollout}").bool(), f.tensor(f"truncated{rollout}").bool())
        if rollout == 2:
            scale.restart = f.tensor("firsts2")[0].bool()
        scaled = scale(reward, ends.ended)
        close(scaled, f.tensor(f"out.reward_scaled{rollout}"))
        close(scale.mean, f.tensor(f"out.scaler.mean{rollout}"))
        close(scale.var, f.tensor(f"out.scaler.var{rollout}"))
        for kind, r in (("scaled", scaled), ("plain", reward)):
            following = torch.cat([value[1:], last])
            advantage = gae(
                r, value, following, ends.under("leak"), gamma=f.set("gamma"), gae_lambda=f.set("gae_lambda")
            )
            close(advantage, f.tensor(f"out.{kind}.advantages{rollout}"))
            close(advantage + value, f.tensor(f"out.{kind}.returns{rollout}"))
