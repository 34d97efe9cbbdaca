"""Soft actor-critic beside Stable-Baselines3's: `offpolicy/sac`, and `compare` for what both learn in equal steps.

One gradient step of DSRL's setting for Hopper, drawing the batch included: observation 11, noise 4 x 3, networks
3 x 128 with tanh and layer normalisation, batch 256, two critics, one thread; the peer runs the same networks. The
limit counts matrix products alone, W_a weights of the actor, W_q of both critics:

    2 B [W_a + W_q (target) + 3 W_q (critics) + 3 W_a + 2 W_q (actor)] / GEMM rate
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from ..algos.replay import Experience, Replay
from ..algos.sac import SAC, SACState
from ..errors import UserError
from ..policies.critic import QMLP
from ..policies.gaussian import GaussianMLP
from ..spec import ArraySpec, EnvSpec
from .limits import Limits
from .offpolicy import stacked_weights
from .race import Effort, Row, Variant, race, ratios
from .toys import ACTION, OBS, weights

CHUNK, STEPS, STORED = 4, 4, 10_000
"""DSRL runs 20 steps a call; fewer at a time are less often interrupted by whatever else runs"""
HIDDEN = (128, 128, 128)
DSRL = SAC(actor=GaussianMLP(HIDDEN, "tanh", "before"), critic=QMLP(HIDDEN, "tanh", 2, "before"), target_entropy=0.0)
GYM = SAC(actor=GaussianMLP((256, 256), log_std_range=(-20.0, 2.0)), critic=QMLP((256, 256), "relu"), warmup=100)
"""the peer's defaults"""


def soft_actor_critic(limits: Limits, effort: Effort) -> Iterator[Row]:
    """Gradient steps per second, and how many times faster than the peer with and without our kernels."""
    bound = ArraySpec((ACTION,), low=(-1.5,) * ACTION, high=(1.5,) * ACTION)
    spec = EnvSpec("toy", {"state": ArraySpec((OBS,))}, bound, 1.0, 1)
    state, generator = replace(DSRL, n_action_steps=CHUNK).init(None, spec), torch.Generator().manual_seed(0)
    replay, model = Replay(STORED), _dsrl_peer()
    stored = _transitions(STORED)
    replay.add(stored)
    _fill(model.replay_buffer, stored)

    def ours() -> None:
        for _ in range(STEPS):
            DSRL.update(state, replay.sample(DSRL.batch, generator), generator)

    def sb3() -> None:
        model.train(STEPS, DSRL.batch)

    peers = {"stable-baselines3": Variant(sb3, threads=1)}
    if limits.fast_matmul:
        peers["stable-baselines3+fast-kernels"] = Variant(sb3, True, 1)
    seconds = race({"ours": Variant(ours, limits.fast_matmul, 1), **peers}, effort)
    least = STEPS * operations(state) / limits.gemm(1)
    faster = ratios(seconds, "ours", peers)
    yield Row("offpolicy/sac/ours", STEPS / seconds["ours"], "steps/s", least / seconds["ours"], faster)
    for name in peers:
        yield Row(f"offpolicy/sac/{name}", STEPS / seconds[name], "steps/s", least / seconds[name])


def operations(state: SACState) -> float:
    """Additions and multiplications of one step's matrix products."""
    return 2.0 * DSRL.batch * (4 * weights(state.actor.network) + 6 * stacked_weights(state.q))


def compare(env: str, steps: int, seed: int, episodes: int = 10) -> dict[str, list[float]]:
    """Returns of evaluation episodes after `steps` environment steps, one gradient step each, by learner.

    Both have the peer's defaults, so what differs is the code; single runs of either differ by their seeds.
    """
    return {"ours": _ours(env, steps, seed, episodes), "stable-baselines3": _theirs(env, steps, seed, episodes)}


def _ours(name: str, steps: int, seed: int, episodes: int) -> list[float]:
    env, generator = gym.make(name), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    state, replay = GYM.init(None, _spec(env)), Replay(steps)
    obs = _tensor(env.reset(seed=seed)[0])
    for _ in range(steps):
        action, extras = GYM.act(state, obs, generator)
        array, reward, terminated, truncated, _ = env.step(action[0, 0].numpy())
        after, paid = _tensor(array), torch.tensor([[float(reward)]])
        one, over = torch.ones(1, dtype=torch.long), torch.tensor([terminated])
        replay.add(Experience(obs, extras["action"], paid, one, over, after))
        obs = _tensor(env.reset()[0]) if terminated or truncated else after
        if state.decisions > GYM.warmup:
            GYM.update(state, replay.sample(GYM.batch, generator), generator)
    return _returns(env, lambda array: state.actor.act(_tensor(array))[0, 0].numpy(), episodes)


def _theirs(name: str, steps: int, seed: int, episodes: int) -> list[float]:
    env = gym.make(name)
    model = _sb3().SAC("MlpPolicy", env, seed=seed, buffer_size=steps, device="cpu")
    model.learn(steps)
    return _returns(env, lambda array: model.predict(array, deterministic=True)[0], episodes)


def _returns(env: Any, act: Any, episodes: int) -> list[float]:
    found = []
    for seed in range(10_000, 10_000 + episodes):
        (obs, _), total, over = env.reset(seed=seed), 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(act(obs))
            total, over = total + float(reward), terminated or truncated
        found.append(total)
    return found


def _spec(env: Any) -> EnvSpec:
    box = env.action_space
    action = ArraySpec(box.shape, low=tuple(map(float, box.low)), high=tuple(map(float, box.high)))
    return EnvSpec(env.spec.id, {"state": ArraySpec(env.observation_space.shape)}, action, 1.0, 1)


def _tensor(array: np.ndarray) -> dict[str, Tensor]:
    return {"state": torch.from_numpy(array)[None, None]}


def _sb3() -> Any:
    try:
        import stable_baselines3
    except ImportError:
        raise UserError("stable-baselines3 is missing: pip install 'noisepilot[bench]'") from None
    return stable_baselines3


class _Spaces(gym.Env):
    """What the peer asks of an environment before it trains on a filled buffer."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS,))
    action_space = gym.spaces.Box(-1.5, 1.5, (CHUNK * ACTION,))


def _dsrl_peer() -> Any:
    sb3 = _sb3()
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.torch_layers import create_mlp

    kinds = {"net_arch": list(HIDDEN), "activation_fn": nn.Tanh}
    model = sb3.SAC("MlpPolicy", _Spaces(), policy_kwargs=kinds, buffer_size=STORED, target_entropy=0.0, device="cpu")
    model.set_logger(Logger(None, []))

    def normalised(width_in: int, width_out: int) -> nn.Sequential:
        return nn.Sequential(
            *create_mlp(width_in, width_out, list(HIDDEN), nn.Tanh, post_linear_modules=[nn.LayerNorm])
        )

    model.actor.latent_pi = normalised(OBS, -1)
    for critic in (model.critic, model.critic_target):
        for i in range(2):
            network = normalised(OBS + CHUNK * ACTION, 1)
            setattr(critic, f"qf{i}", network)
            critic.q_networks[i] = network
    for module in (model.actor, model.critic):
        module.optimizer = torch.optim.Adam(module.parameters(), lr=3e-4)
    return model


def _transitions(count: int) -> Experience:
    g = torch.Generator().manual_seed(1)
    obs = [{"state": torch.randn(count, 1, OBS, generator=g)} for _ in range(2)]
    action = 2 * torch.rand(count, CHUNK, ACTION, generator=g) - 1
    reward, length = torch.randn(count, CHUNK, generator=g), torch.full((count,), CHUNK)
    return Experience(obs[0], action, reward, length, torch.zeros(count, dtype=torch.bool), obs[1])


def _fill(buffer: Any, stored: Experience) -> None:
    buffer.observations[:, 0], buffer.next_observations[:, 0] = (
        named["state"][:, 0].numpy() for named in (stored.obs, stored.next_obs)
    )
    buffer.actions[:, 0], buffer.rewards[:, 0] = stored.action.flatten(1).numpy(), stored.reward.sum(1).numpy()
    buffer.full = True
