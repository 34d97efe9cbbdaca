"""Diffusion and implicit Q-learning: what must hold by construction, what is refused, and a bandit of two modes."""

import copy
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from noisepilot.algos import dql, idql
from noisepilot.algos.bc import BC
from noisepilot.algos.dql import DQL
from noisepilot.algos.idql import IDQL
from noisepilot.algos.replay import Replay
from noisepilot.errors import UserError
from noisepilot.policies import MLP, CosinePath, LinearPath, PolicyConfig, Sampler, load_policy, save_policy
from noisepilot.policies.critic import QMLP
from noisepilot.policies.objective import MeanFlow

from ..policies.toys import generator, jolt, tiny
from .toys import weights
from .toys_q import env_spec, make, transitions

NETWORK = MLP((48, 48, 48), time_dim=0, activation="gelu", residual=False)
EULER = Sampler(5, eta=0.0, clip_data=None)
FLOW = PolicyConfig(NETWORK, LinearPath(), EULER, "velocity", horizon=1, n_action_steps=1)
DIFFUSION = replace(FLOW, network=replace(NETWORK, time_dim=8), path=CosinePath(5), sampler=Sampler(5), predicts="eps")
MEAN_FLOW = replace(
    FLOW, network=replace(NETWORK, step_size=True), sampler=replace(EULER, steps=1), objective=MeanFlow()
)
CRITIC = QMLP((48, 48), "gelu")
SMALL = {"act_after": 0, "critic": CRITIC, "lr": 1e-3, "critic_lr": 3e-3, "gamma": 0.0, "max_grad_norm": None}
STUDENT = {"student": None, "act_after": 0}
GIVEN = SMALL | {"lr": 3e-3, "critic_lr": 0.0, "candidates": 1}
# Forward-mode derivatives of torch load its own deprecated scripts.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def batch_of(size: int, g: torch.Generator, dtype=torch.float32):
    """Actions near -0.7 and, twice as often, 0.7; the closer to -0.7, the better."""
    side = torch.where(torch.rand(size, 1, generator=g) < 2 / 3, 0.7, -0.7)
    action = (side + 0.03 * torch.randn(size, 1, generator=g)).to(dtype)
    obs = torch.zeros(size, 1, dtype=dtype)
    return transitions(obs, action, 1 - (action + 0.7).square() / 2, obs, torch.ones(size))


@lru_cache
def judge():
    """A critic that knows the reward of every action, also where there is no data."""
    torch.manual_seed(0)
    critic, g = CRITIC.build(1, 1), generator(3)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(500):
        action = 3 * torch.rand(128, 1, generator=g) - 1.5
        loss = (critic(torch.zeros(128, 1), action) - (1 - (action + 0.7).square() / 2)[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return critic


@lru_cache
def cloned(kind: str):
    """A policy that knows both modes."""
    torch.manual_seed(0)
    policy = make({"flow": FLOW, "diffusion": DIFFUSION, "mean flow": MEAN_FLOW}[kind], 1, 1, torch.float32)
    bc = BC(grad_steps=600, lr=5e-3, lr_final=1e-4, ema_decay=0.95)
    state, g = bc.init(policy), generator()
    for _ in range(600):
        batch = batch_of(128, g)
        bc.update(state, batch.obs, batch.action, g)
    return state.averaged()


def sample(actor, size=1500):
    return actor.act({"state": torch.zeros(size, 1, 1)}, generator=generator(1)).flatten()


def share_near(action, mode):
    return ((action - mode).abs() < 0.3).float().mean().item()


CLIMBING = {
    "dql": ("diffusion", DQL(extract="chain", eta=3.0, **GIVEN), 150),
    "fbrac": ("flow", DQL(extract="chain", eta=3.0, **GIVEN), 150),
    "edp": ("diffusion", DQL(extract="one_call", actor_q="mean", **GIVEN), 200),
    "fql": ("flow", DQL(extract="student", actor_q="mean", alpha=0.05, **GIVEN), 250),
    "ofql": ("mean flow", DQL(extract="one_step", eta=3.0, **GIVEN), 150),
}
CHOOSING = {
    "bfn": ("flow", DQL(extract="none", **SMALL | {"candidates": 16, "temperature": None}), 60),
    "idql": ("diffusion", IDQL(candidates=16, **SMALL), 60),
    "softmax": ("diffusion", IDQL(candidates=32, temperature=0.02, **SMALL), 60),
}
REACHED = {"dql": (0.75, 0.1), "fbrac": (0.7, 0.12), "edp": (0.5, 0.22)}
"""share at the better mode, and between the modes, where the base has 0.23 and 0.12; many steps with noise between keep
some of it, and EDP's estimate from a very noisy action is the mean of both modes"""


@pytest.mark.parametrize("name", [*CLIMBING, *CHOOSING])
def test_mass_moves_to_the_better_mode(name):
    kind, algo, steps = (CLIMBING | CHOOSING)[name]
    base = cloned(kind)
    before = sample(base)
    assert share_near(before, 0.7) > 0.5
    torch.manual_seed(1)
    state, g = algo.init(base, env_spec(base)), generator(2)
    if name in CLIMBING:  # gradients ask about actions that the data does not show
        for critic in (state.critic, state.target):
            critic.load_state_dict(judge().state_dict())
    for _ in range(steps):
        algo.update(state, batch_of(128, g), g)
    action = sample(state.actor)
    moved, between = REACHED.get(name, (0.95, 0.03))
    assert share_near(action, -0.7) > moved
    assert (action.abs() < 0.3).float().mean() < between
    assert torch.equal(sample(base), before)  # the base stays


def small(extract="chain", kind="flow", **changes):
    config = {"flow": FLOW, "diffusion": DIFFUSION, "mean flow": MEAN_FLOW}[kind]
    base = make(config, 1, 1)
    algo = DQL(extract=extract, **{"critic": CRITIC, "candidates": 2, "act_after": 0} | changes)
    return algo, algo.init(base, env_spec(base)), batch_of(8, generator(), torch.float64)


@pytest.mark.parametrize(
    ("extract", "kind"),
    [("chain", "flow"), ("chain", "diffusion"), ("one_call", "flow"), ("student", "flow"), ("one_step", "mean flow")],
)
def test_q_moves_the_actor_and_not_the_critic(extract, kind):
    algo, state, batch = small(extract, kind, lr=0.0)  # the weights stay, so only eta differs
    acting = state.student or state.policy
    noise = acting.noise(8, generator())
    order = torch.arange(2)
    gradients = []
    for eta in (0.0, 1.0):
        state.critic.zero_grad(set_to_none=True)
        replace(algo, eta=eta, max_grad_norm=None).actor_step(state, batch, noise, order, generator())
        assert all(p.grad is None for p in state.critic.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in acting.parameters()]))
    assert not torch.allclose(*gradients)


def test_student_of_a_one_step_teacher_with_its_own_weights_has_no_error():
    # A flow of data with one step is its own student.
    base = make(replace(FLOW, sampler=replace(EULER, steps=1), predicts="data"), 1, 1)
    algo = DQL(extract="student", act_after=0, critic=CRITIC, candidates=1)
    state = algo.init(base, env_spec(base))
    batch, noise = batch_of(8, generator(), torch.float64), base.noise(8, generator())
    step = lambda: algo.actor_loss(state, batch, noise, torch.arange(2), generator())[1]["distill_loss"].item()  # noqa: E731
    assert step() > 0
    state.student.load_state_dict(state.policy.state_dict())
    assert step() == 0


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_best_of_n_with_a_constant_critic_is_the_base(temperature):
    _, state, _ = small(candidates=7, temperature=temperature)
    for p in state.target.parameters():
        p.zero_()
    noise = torch.randn(500, *state.actor.noise_shape, generator=generator(), dtype=torch.float64)
    obs = {"state": torch.zeros(500, 1, 1, dtype=torch.float64)}
    action = state.actor.act(obs, noise)
    if temperature is None:  # ties go to the first candidate
        assert torch.allclose(action, state.policy.act(obs, noise[:, :1]).clamp(-1, 1))
    else:  # any candidate, each as often as the others
        every = torch.stack([state.policy.act(obs, noise[:, i : i + 1]).clamp(-1, 1) for i in range(7)])
        counts = ((every - action).abs() < 1e-9).flatten(1).sum(1)
        assert counts.min() > 45
        assert counts.max() < 130  # some are clipped to the same bound
    assert torch.equal(action, state.actor.act(obs, noise))


def test_softmax_of_candidates():
    _, state, _ = small(candidates=3, temperature=0.5)
    q = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    draw = torch.randn(20_000, generator=generator(), dtype=torch.float64)
    picked = state.actor._pick(q.expand(20_000, 3), draw)
    share = torch.bincount(picked, minlength=3) / 20_000
    assert torch.allclose(share.double(), (q / 0.5).softmax(0), atol=0.02)


def test_backup_takes_the_largest_per_critic_or_of_their_aggregate():
    algo, state, batch = small(backup_candidates=4)
    noise = state.average.noise(32, generator()).unflatten(0, (8, 4))
    q = []
    with torch.no_grad():
        for i in range(4):
            context = state.average.encode(batch.next_obs)
            action = state.average.sample(context, noise[:, i]).action.clamp(-1, 1)
            q.append(state.target(context.features, action))
    q = torch.stack(q, 2)
    reward, going_on = batch.reward[:, 0], (~batch.terminated).double()
    for per_critic, value in ((True, q.amax(2).amin(0)), (False, q.amin(0).amax(1))):
        ours = replace(algo, max_per_critic=per_critic).q_target(state, batch, noise)
        assert torch.allclose(ours, reward + 0.99 * going_on * value)


def test_chunks_are_discounted_per_step():
    base = make(replace(FLOW, horizon=3, n_action_steps=3), 1, 1)
    algo = DQL(critic=CRITIC, gamma=0.5)
    state = algo.init(base, env_spec(base))
    one = batch_of(2, generator(), torch.float64)
    batch = replace(
        one,
        action=torch.zeros(2, 3, 1, dtype=torch.float64),
        reward=torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0]], dtype=torch.float64),
        length=torch.tensor([3, 2]),
        terminated=torch.tensor([False, True]),
    )
    noise = state.average.noise(2, generator())[:, None]
    following = algo.q_target(state, replace(batch, reward=torch.zeros_like(batch.reward)), noise)
    target = algo.q_target(state, batch, noise)
    assert torch.allclose(target - following, torch.tensor([3.0, 2.0], dtype=torch.float64))
    assert following[1] == 0
    assert torch.allclose(
        replace(algo, gamma_per_step=False).q_target(state, batch, noise) - 4 * following, batch.reward.sum(1)
    )


@pytest.mark.parametrize("name", [*dql.METHODS, *idql.METHODS])
def test_published_methods_run_and_act(name):
    algo = (dql.METHODS | idql.METHODS)[name]
    base = make(MEAN_FLOW if name == "ofql" else FLOW, 1, 1, torch.float32)
    algo = replace(algo, critic=CRITIC, explore_std=0.1, **(STUDENT if name == "fql" else {}))
    state, g = algo.init(base, env_spec(base)), generator()
    live = weights(state.policy)
    metrics = algo.update(state, batch_of(8, g), g)
    assert all(isinstance(v, torch.Tensor) and v.dim() == 0 and not v.requires_grad for v in metrics.values())
    assert state.step == 1
    assert not torch.equal(weights(state.policy), live)
    action, extras = algo.act(state, {"state": torch.zeros(5, 1, 1)}, g)
    assert action.shape == extras["action"].shape == (5, 1, 1)
    assert extras["action"].abs().max() <= 1
    assert state.actor.spec == base.spec


def test_state_is_restored():
    algo, state, batch = small()
    jolt(state.critic)
    algo.update(state, batch, generator())
    other = algo.init(state.policy, env_spec(state.policy))
    for name, module in state.modules().items():
        other.modules()[name].load_state_dict(module.state_dict())
    for name, optimizer in state.optimizers().items():
        other.optimizers()[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_extra(state.extra())
    for s in (state, other):
        algo.update(s, batch, generator(5))
    for name, module in state.modules().items():
        assert torch.equal(weights(module), weights(other.modules()[name]))
    assert other.step == state.step == 2
    assert torch.equal(weights(other.actor.critic), weights(state.target))


@pytest.mark.parametrize("name", ["dql", "fql"])
def test_actors_are_saved_and_loaded(name, tmp_path):
    base = make(FLOW, 1, 1, torch.float32)
    algo = replace(dql.METHODS[name], critic=CRITIC, **(STUDENT if name == "fql" else {}))
    actor = algo.init(base, env_spec(base)).actor
    loaded = load_policy(save_policy(actor, tmp_path / "actor"), "cpu")
    assert type(loaded) is type(actor)
    noise = torch.randn(3, *actor.noise_shape, generator=generator())
    obs = {"state": torch.zeros(3, 1, 1)}
    assert torch.equal(loaded.act(obs, noise), actor.act(obs, noise))


def test_nan_reward_is_refused():
    batch = batch_of(4, generator())
    batch.reward[2] = float("nan")
    with pytest.raises(UserError, match="reward"):
        Replay(10).add(batch)


class NotAPolicy:
    spec = make(FLOW, 1, 1).spec


@pytest.mark.parametrize(
    ("base", "algo", "match"),
    [
        (lambda: NotAPolicy(), DQL(), "NotAPolicy has none"),
        (lambda: tiny("flow"), DQL(), "must equal horizon"),
        (lambda: tiny("flow"), IDQL(), "must equal horizon"),
        (lambda: make(FLOW, 1, 1).split(2), DQL(), "frozen one"),
        (lambda: make(FLOW, 1, 1), DQL(extract="one_step"), "trained to act in one step"),
    ],
)
def test_refused(base, algo, match):
    base = base()
    with pytest.raises(UserError, match=match) as error:
        algo.init(base, env_spec(base))
    assert "\n" not in str(error.value)


def test_refused_settings():
    for settings, match in (
        ({"extract": "none", "candidates": 1}, "candidates"),
        ({"backup_candidates": 0}, "least 1"),
    ):
        with pytest.raises(UserError, match=match):
            DQL(**settings)
    with pytest.raises(UserError, match="expectile"):
        IDQL(expectile=1.0)
    with pytest.raises(UserError, match="temperature"):
        small(temperature=0.0)


@pytest.mark.parametrize("algo", [DQL(critic=CRITIC), IDQL(critic=CRITIC)])
def test_an_environment_that_does_not_fit_is_refused(algo):
    base = make(FLOW, 1, 1)
    with pytest.raises(UserError, match="differ in"):
        algo.init(base, env_spec(make(FLOW, 2, 1)))


def test_until_the_student_can_repeat_it_the_policy_acts():
    base = make(FLOW, 1, 1, torch.float32)
    algo = DQL(extract="student", act_after=2, critic=CRITIC, candidates=1)
    state, g = algo.init(base, env_spec(base)), generator()
    before = weights(state.student)
    for _ in range(2):
        assert state.actor is state.policy
        assert "q_loss" not in algo.update(state, batch_of(8, g), g)
    assert state.actor is state.student
    assert not torch.equal(weights(state.student), before)
    assert "q_loss" in algo.update(state, batch_of(8, g), g)
