"""Soft actor-critic beside Stable-Baselines3's: the same weights, batch and noise give the same numbers."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from noisepilot.algos.offpolicy import OffPolicy
from noisepilot.algos.replay import Experience, Replay
from noisepilot.algos.sac import SAC
from noisepilot.errors import UserError
from noisepilot.experiments.checkpoint import load_optimizer_state, load_state, optimizer_state, save_state
from noisepilot.policies.critic import QMLP
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.spec import ArraySpec, EnvSpec

from ..policies.toys import generator, tiny

OBS, ACTION, BATCH = 3, 2, 16
SPEC = EnvSpec(
    "Toy-v0", {"state": ArraySpec((OBS,))}, ArraySpec((ACTION,), low=(-2.0, -1.0), high=(2.0, 3.0)), 10.0, 100
)
SMALL = {
    "actor": GaussianMLP((16, 16), "relu", log_std_range=(-20.0, 2.0)),
    "critic": QMLP((16, 16), "relu"),
    "batch": BATCH,
    "warmup": 4,
}


def batch(seed=0, chunk=1, size=BATCH):
    g = generator(seed)
    state = torch.randn(2, size, 1, OBS, generator=g)
    return Experience(
        obs={"state": state[0]},
        action=2 * torch.rand(size, chunk, ACTION, generator=g) - 1,
        reward=torch.randn(size, chunk, generator=g),
        length=torch.full((size,), chunk),
        terminated=torch.arange(size) % 5 == 0,
        next_obs={"state": state[1]},
    )


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class _Space(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS,))
    action_space = gym.spaces.Box(np.array(SPEC.action.low, np.float32), np.array(SPEC.action.high, np.float32))


def peer(algo, state):
    """Stable-Baselines3's SAC with the weights of ours."""
    sb3 = pytest.importorskip("stable_baselines3")
    architecture = {"net_arch": [16, 16], "activation_fn": torch.nn.ReLU}
    model = sb3.SAC("MlpPolicy", _Space(), policy_kwargs=architecture, batch_size=BATCH, device="cpu", seed=0)
    model.set_logger(sb3.common.logger.configure(None, []))
    ours = [layer for layer in state.actor.network.trunk if isinstance(layer, torch.nn.Linear)]
    theirs = [layer for layer in model.actor.latent_pi if isinstance(layer, torch.nn.Linear)]
    heads = [(model.actor.mu, slice(None, ACTION)), (model.actor.log_std, slice(ACTION, None))]
    with torch.no_grad():
        for a, b in zip(theirs, ours[:-1], strict=True):
            a.load_state_dict(b.state_dict())
        for head, rows in heads:
            head.weight.copy_(ours[-1].weight[rows])
            head.bias.copy_(ours[-1].bias[rows])
        for critic, q in ((model.critic, state.q), (model.critic_target, state.target)):
            for e, network in enumerate(critic.q_networks):
                linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
                for a, b in zip(linear, q.layers, strict=True):
                    a.weight.copy_(b.weight[e].T)
                    a.bias.copy_(b.bias[e, 0])
    return model


def test_one_step_equals_stable_baselines(monkeypatch):
    algo = SAC(**SMALL)
    torch.manual_seed(0)
    state = algo.init(None, SPEC)
    model, data = peer(algo, state), batch()
    eps = torch.randn(2, BATCH, ACTION, generator=generator(7))
    # They draw for the present state first, ours for the next one.
    order = iter([eps[1], eps[0]])
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, *_: self.mean + self.stddev * next(order))
    sampled = (data.obs["state"][:, 0], data.action[:, 0], data.next_obs["state"][:, 0], data.terminated, data.reward)
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    o, a, following, ended, reward = sampled
    samples = ReplayBufferSamples(o, a, following, ended.float()[:, None], reward)
    monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, **__: samples)
    model.train(gradient_steps=1, batch_size=BATCH)
    monkeypatch.undo()
    metrics = algo.update(state, data, generator(7))
    logged = model.logger.name_to_value
    for ours, theirs in (("critic_loss", "critic_loss"), ("actor_loss", "actor_loss"), ("alpha", "ent_coef")):
        # They add 1e-6 inside the logarithm of the squashing, which ours does not need.
        assert metrics[ours].item() == pytest.approx(logged[f"train/{theirs}"], rel=1e-4), ours
    assert state.temperature.log_alpha.item() == pytest.approx(model.log_ent_coef.item(), rel=1e-5)
    moved = peer_weights(model)
    for name, values in {
        "actor": weights(state.actor.network),
        "q": weights(state.q),
        "target": weights(state.target),
    }.items():
        ours, theirs = values.sort().values, moved[name].sort().values
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def peer_weights(model):
    actor = torch.cat([weights(part) for part in (model.actor.latent_pi, model.actor.mu, model.actor.log_std)])
    return {"actor": actor, "q": weights(model.critic), "target": weights(model.critic_target)}


def test_the_actor_step_leaves_critics_alone():
    algo, state = SAC(**SMALL), SAC(**SMALL).init(None, SPEC)
    before = weights(state.q)
    features = state.actor.features(batch().obs)
    algo.actor_step(state, features, torch.randn(BATCH, ACTION), state.q, generator())
    assert torch.equal(weights(state.q), before)
    assert all(p.grad is None for p in state.q.parameters())


def test_acting():
    algo, state, g = SAC(**SMALL), SAC(**SMALL).init(None, SPEC), generator()
    _: OffPolicy = algo  # pyright checks it
    obs = batch(size=4).obs
    first, extras = algo.act(state, obs, g)
    low, high = torch.tensor(SPEC.action.low), torch.tensor(SPEC.action.high)
    assert first.shape == (4, 1, ACTION)
    torch.testing.assert_close(first, (low + high) / 2 + extras["action"] * (high - low) / 2)
    assert state.decisions == 4
    drawn = torch.cat([algo.act(state, obs, g)[1]["action"] for _ in range(500)])
    mean = state.actor.mode(state.actor.features(obs))
    assert (drawn.view(500, 4, 1, ACTION).median(0).values - mean).abs().max() < 0.2  # warm-up is over
    assert (state.actor.act(obs) - (low + high) / 2 - mean * (high - low) / 2).abs().max() < 1e-6


def test_warm_up_is_uniform_over_the_limits():
    algo = SAC(**{**SMALL, "warmup": 10_000})
    action, _ = algo.act(algo.init(None, SPEC), {"state": torch.zeros(5_000, 1, OBS)}, generator())
    low, high = torch.tensor(SPEC.action.low), torch.tensor(SPEC.action.high)
    assert ((action >= low) & (action <= high)).all()
    for quarter in range(1, 4):
        below = (action < low + quarter / 4 * (high - low)).float().mean((0, 1))
        assert (below - quarter / 4).abs().max() < 0.03


def test_options():
    data, g = batch(chunk=3), generator
    base = {**SMALL, "n_action_steps": 3}
    algo = SAC(**base, learn_alpha=False, alpha=0.2)
    state = algo.init(None, SPEC)
    assert algo.update(state, data, g())["alpha"].item() == pytest.approx(0.2)
    assert state.temperature.log_alpha.grad is None
    algo = SAC(**base, alpha=0.3, alpha_floor=0.3, target_entropy=-100.0, alpha_lr=1.0)
    state = algo.init(None, SPEC)
    algo.update(state, data, g())
    assert state.temperature.log_alpha.exp().item() == pytest.approx(0.3)
    soft, hard = SAC(**base), SAC(**base, entropy_in_backup=False)
    features, eps = state.actor.features(data.obs), torch.randn(BATCH, 3 * ACTION)
    with torch.no_grad():
        action, log_prob = state.actor.network.sample(features, eps)
        plain = state.target(features, action).amin(0)
    torch.testing.assert_close(hard.next_value(state, features, eps, g()), plain)
    alpha = state.temperature.log_alpha.exp()
    torch.testing.assert_close(soft.next_value(state, features, eps, g()), (plain - alpha * log_prob).detach())
    clipped = SAC(**base, max_grad_norm=1e-3)
    state = clipped.init(None, SPEC)
    clipped.update(state, data, g())
    norm = torch.cat([p.grad.flatten() for p in state.q.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_observations_are_normalised_as_in_the_base():
    base = tiny("ddim", dtype=torch.float32, obs={"state": OBS}, action_dim=ACTION)
    state = SAC(**SMALL).init(base, SPEC)
    assert state.actor.spec.n_obs_steps == 2
    obs = {"state": torch.randn(5, 2, OBS)}
    torch.testing.assert_close(state.actor.features(obs), base.encode(obs).features)
    state.actor.normalizer.require_fitted()


def test_actions_need_limits():
    unlimited = EnvSpec("Toy-v0", SPEC.obs, ArraySpec((ACTION,)), 10.0, 100)
    with pytest.raises(UserError, match="finite limits"):
        SAC().init(None, unlimited)


def test_resumes_bit_equal(tmp_path):
    algo = SAC(**SMALL)
    first = algo.init(None, SPEC)
    algo.update(first, batch(), generator())
    parts = {
        "modules": {k: dict(m.state_dict()) for k, m in first.modules().items()},
        "optimizers": {k: optimizer_state(o) for k, o in first.optimizers().items()},
        "extra": first.extra(),
    }
    save_state(tmp_path, parts)
    tree, second = load_state(tmp_path), algo.init(None, SPEC)
    for name, module in second.modules().items():
        module.load_state_dict(tree["modules"][name])
    for name, optimizer in second.optimizers().items():
        load_optimizer_state(optimizer, tree["optimizers"][name])
    second.load_extra(tree["extra"])
    assert second.step == 1
    for state in (first, second):
        algo.update(state, batch(1), generator(1))
    for name, module in first.modules().items():
        assert torch.equal(weights(module), weights(second.modules()[name])), name


START = torch.linspace(-2, 2, 16)
"""a point on a line in 16 slots; the action is its velocity, the cost its distance from the origin"""


def walk(choose, steps=20):
    """Mean reward of one episode per slot."""
    x, total = START.clone(), 0.0
    for _ in range(steps):
        x = x + choose(x)
        total -= x.abs().mean().item() / steps
    return total


def test_learns_to_come_home():
    """Nearly as well as going straight home; episodes end by time alone, so every value bootstraps."""
    algo = SAC(actor=GaussianMLP((32, 32)), critic=QMLP((32, 32), "relu"), actor_lr=3e-3, critic_lr=3e-3, alpha_lr=3e-3,
               gamma=0.9, warmup=320, batch=64)  # fmt: skip
    spec = EnvSpec("Line-v0", {"x": ArraySpec((1,))}, ArraySpec((1,), low=(-0.3,), high=(0.3,)), 10.0, 20)
    torch.manual_seed(0)
    state, replay, g = algo.init(None, spec), Replay(5_000), generator()
    one, never = torch.ones(16, dtype=torch.long), torch.zeros(16, dtype=torch.bool)
    x = START
    for step in range(220):
        x = START if step % 20 == 0 else x
        obs = {"x": x[:, None, None]}
        action, extras = algo.act(state, obs, g)
        x = x + action[:, 0, 0]
        following, reward = {"x": x[:, None, None]}, -x.abs()[:, None]
        replay.add(Experience(obs, extras["action"], reward, one, never, following))
        for _ in range(4 * (state.decisions > algo.warmup)):
            algo.update(state, replay.sample(algo.batch, g), g)
    best, still = walk(lambda x: -x.clamp(-0.3, 0.3)), walk(torch.zeros_like)
    learned = walk(lambda x: state.actor.act({"x": x[:, None, None]})[:, 0, 0])
    assert learned > best + 0.1 * (still - best), (still, learned, best)
