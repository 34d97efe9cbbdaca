import numpy as np
import pytest
import torch

from noisepilot.datasets.checks import check
from noisepilot.datasets.readers import load
from noisepilot.envs.seeds import train_seeds
from noisepilot.errors import UserError
from noisepilot.experiments.actors_npz import load_actor_npz
from noisepilot.experiments.collect import collect
from noisepilot.experiments.controllers import Disturbed, PolicyController, Uniform, make_controller

from .toy import Homing, NoiseActor, ToyCore


def run(path, episodes=7, slots=3, controller=None, seed=5, **options):
    return collect(controller or Disturbed(Homing(), 0.2), ToyCore(slots), episodes, path, seed=seed, **options)


def test_recorded_steps_replay_in_the_environment(tmp_path):
    summary = run(tmp_path / "set", source="homing")
    episodes = load(tmp_path / "set")
    assert (summary.episodes, summary.steps) == (7, episodes.num_steps)
    assert summary.success_rate == episodes.success_rate()
    assert episodes.data["next.success"].any()
    assert summary.mean_return == pytest.approx(episodes.returns().mean())
    for index, episode in enumerate(episodes):
        core = ToyCore(1)
        state = core.reset([train_seeds(5, 0, index)])["state"]
        for t in range(len(episode["action"])):
            np.testing.assert_allclose(episode["observation.state"][t], state[0], atol=1e-6)
            step = core.step(episode["action"][None, t : t + 1])
            state = step.obs["state"][:, 0]
            assert episode["next.reward"][t] == pytest.approx(step.reward[0, 0])
            assert episode["next.terminated"][t] == step.terminated[0, 0]
            assert episode["next.truncated"][t] == step.truncated[0, 0]
        assert step.ended[0]
        np.testing.assert_allclose(episodes.final["observation.state"][index], state[0], atol=1e-6)


def test_attributes_say_where_it_comes_from(tmp_path):
    run(tmp_path / "set", source="homing")
    episodes = load(tmp_path / "set")
    assert {key: episodes.attrs[key] for key in ("env", "fps", "source", "seed")} == {
        "env": "Toy-v0",
        "fps": 10.0,
        "source": "homing",
        "seed": 5,
    }
    spec = ToyCore().spec
    assert episodes.action_spec() == spec.action
    assert episodes.obs_specs() == spec.obs
    assert [f for f in check(episodes, spec) if f.level == "error"] == []


@pytest.mark.parametrize("controller", [Disturbed(Homing(), 0.2), PolicyController(NoiseActor(), torch.device("cpu"))])
def test_slots_and_interruptions_do_not_change_the_set(tmp_path, controller):
    run(tmp_path / "whole", controller=controller)
    run(tmp_path / "single", slots=1, controller=controller)
    for episodes in (2, 3, 7):
        run(tmp_path / "pieces", episodes, controller=controller)
    hashes = {load(tmp_path / name).hash() for name in ("whole", "single", "pieces")}
    assert len(hashes) == 1


def test_killed_between_chunks_and_continued(tmp_path):
    class Killed(Homing):
        calls = 0

        def act(self, obs, rng):
            Killed.calls += 1
            if Killed.calls == 6:
                raise KeyboardInterrupt
            return super().act(obs, rng)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "set", slots=1, controller=Disturbed(Killed(), 0.2))
    assert 0 < len(load(tmp_path / "set")) < 7
    run(tmp_path / "set")
    run(tmp_path / "whole")
    assert load(tmp_path / "set").hash() == load(tmp_path / "whole").hash()


def test_enough_is_enough_and_other_settings_are_refused(tmp_path):
    run(tmp_path / "set")
    before = load(tmp_path / "set").hash()
    assert run(tmp_path / "set", episodes=3).episodes == 7
    with pytest.raises(UserError, match="was begun with seed 5, not 6: repeat its settings"):
        run(tmp_path / "set", episodes=9, seed=6)
    assert load(tmp_path / "set").hash() == before


def test_as_many_episodes_as_the_steps_take(tmp_path):
    """The first ones that suffice, whatever the number of slots and interruptions."""
    run(tmp_path / "nine", 9)
    ends = load(tmp_path / "nine").ends
    wanted = int(ends[4]) - 1
    for name, slots in (("single", 1), ("many", 4)):
        assert run(tmp_path / name, 100, slots, steps=wanted).episodes == 5
    run(tmp_path / "pieces", steps=int(ends[0]))
    assert run(tmp_path / "pieces", steps=wanted).steps == ends[4]
    hashes = {load(tmp_path / name).hash() for name in ("single", "many", "pieces")}
    assert hashes == {load(tmp_path / "nine").select(range(5)).hash()}


def test_progress_counts_episodes(tmp_path):
    seen = []
    run(tmp_path / "set", progress=seen.append)
    assert seen[-1]["episodes"] == 7
    assert 0 <= seen[-1]["rollout/success_rate"] <= 1


def test_random_actions_fill_the_limits(tmp_path):
    run(tmp_path / "set", 30, controller=make_controller("random", ToyCore().spec))
    action = load(tmp_path / "set").data["action"]
    assert (np.abs(action) <= 0.5).all()
    assert np.abs(action).max() > 0.48
    assert action.std() == pytest.approx(1 / np.sqrt(12), abs=0.02)


def write_actor(path, **arrays):
    rng = np.random.default_rng(0)
    base = {
        "w0": rng.normal(size=(4, 2)),
        "b0": np.zeros(4),
        "w_out": rng.normal(size=(2, 4)),
        "b_out": np.ones(2),
    }
    np.savez(path, **{key: value for key, value in (base | arrays).items() if value is not None})
    return base


def test_squashed_and_gaussian_array_actors_by_hand(tmp_path):
    x = np.array([[0.3, -0.7], [2.0, 1.0]])
    base = write_actor(tmp_path / "sac.npz", w_logstd=np.zeros((2, 4)), b_logstd=np.full(2, np.log(0.5)), act="relu")
    hidden = np.maximum(x @ base["w0"].T, 0)
    mean = hidden @ base["w_out"].T + 1
    draw = np.stack([np.random.default_rng(seed).standard_normal(2) for seed in (1, 2)])
    rng = [np.random.default_rng(seed) for seed in (1, 2)]
    action = load_actor_npz(str(tmp_path / "sac.npz")).act({"state": x[:, None]}, rng)
    np.testing.assert_allclose(action[:, 0], np.tanh(mean + 0.5 * draw), rtol=1e-12)

    write_actor(
        tmp_path / "ppo.npz",
        log_std=np.zeros(2),
        obs_mean=np.ones(2),
        obs_var=np.full(2, 4.0),
        obs_eps=1e-8,
        obs_clip=0.4,
        act="tanh",
    )
    hidden = np.tanh(np.clip((x - 1) / 2, -0.4, 0.4) @ base["w0"].T)
    action = load_actor_npz(str(tmp_path / "ppo.npz"), noise=0.0).act({"state": x[:, None]}, rng)
    np.testing.assert_allclose(action[:, 0], hidden @ base["w_out"].T + 1, rtol=1e-7)


def test_dapg_layers_and_scales(tmp_path):
    w, b = [np.eye(2), np.eye(2) * 2], [np.zeros(2), np.ones(2)]
    arrays = {"w0": w[0], "w1": w[1], "b0": b[0], "b1": b[1], "log_std": np.zeros(2)}
    scales = {
        "in_shift": np.ones(2),
        "in_scale": np.full(2, 2.0),
        "out_shift": np.ones(2),
        "out_scale": np.full(2, 3.0),
    }
    np.savez(tmp_path / "dapg.npz", **arrays, **scales)
    action = load_actor_npz(str(tmp_path / "dapg.npz"), 0.0).act(
        {"state": np.array([[[2.0, 4.0]]])}, [np.random.default_rng(0)]
    )
    np.testing.assert_allclose(action[0, 0], (np.tanh([0.5, 1.5]) * 2 + 1) * 3 + 1, rtol=1e-6)


def test_snapshots_are_chosen_by_name(tmp_path):
    base = {f"{name}/{key}": np.ones((2, 2)) for name in ("iter1", "iter2") for key in ("w0", "b0", "w_out", "b_out")}
    np.savez(tmp_path / "many.npz", allow_pickle=False, **base)
    assert load_actor_npz(f"{tmp_path}/many.npz:iter2").arrays.keys() == {"w0", "b0", "w_out", "b_out"}
    with pytest.raises(UserError, match=r"holds 2 snapshots: name one, as in many.npz:iter2"):
        load_actor_npz(f"{tmp_path}/many.npz")
    with pytest.raises(UserError, match="unknown snapshot 'iter3': did you mean 'iter2'"):
        load_actor_npz(f"{tmp_path}/many.npz:iter3")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w0": None}, "is not an actor: it has no layer"),
        ({"time_feature": True}, "expects the time as part of its observation"),
        ({"act": "gelu"}, "unknown activation 'gelu'"),
    ],
)
def test_archives_that_are_no_actor(tmp_path, arrays, message):
    write_actor(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_actor_npz(str(tmp_path / "bad.npz"))


def test_wrong_actors_are_refused_with_a_reason(tmp_path):
    spec = ToyCore().spec
    write_actor(tmp_path / "other.npz", w0=np.ones((4, 3)), log_std=np.zeros(2))
    with pytest.raises(UserError, match=r"other.npz maps a state of 3 to 2 actions, but Toy-v0 has"):
        make_controller(f"{tmp_path}/other.npz", spec)
    with pytest.raises(UserError, match=r"missing.npz: check the path"):
        make_controller(f"{tmp_path}/missing.npz", spec)
    with pytest.raises(UserError, match="random actions take no noise"):
        make_controller("random", spec, 0.1)
    with pytest.raises(UserError, match=r"noise -1.0 must not be negative"):
        make_controller("random", spec, -1.0)


def test_unlimited_actions_cannot_be_drawn():
    from dataclasses import replace

    spec = ToyCore().spec
    unlimited = replace(spec, action=replace(spec.action, low=None))
    with pytest.raises(UserError, match="no finite action limits"):
        Uniform(unlimited).check_env(unlimited)


def test_real_actors_reach_their_published_returns(shared_data):
    gymnasium = pytest.importorskip("gymnasium")
    actor = load_actor_npz(str(shared_data / "policies/policy_hopper_zoo_trpo.npz"), noise=0.0)
    env = gymnasium.make("Hopper-v5")
    obs, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        action = actor.act({"state": obs[None, None]}, [np.random.default_rng(0)])[0, 0]
        obs, reward, terminated, truncated, _ = env.step(np.clip(action, -1, 1).astype(np.float32))
        total, over = total + float(reward), terminated or truncated
    env.close()
    assert total > 3500
