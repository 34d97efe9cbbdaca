"""PushT against gym-pusht, and what it says of recorded states."""

from __future__ import annotations

import numpy as np
import pytest

from noisepilot.datasets.conform import conform
from noisepilot.datasets.readers import load
from noisepilot.envs import make_core
from noisepilot.envs.pusht import COVERED, Judged, PushT, look
from noisepilot.errors import UserError

PUSHT = "gym_pusht/PushT-v0"
pytest.importorskip("gym_pusht")


def reference(obs_type="state"):
    from noisepilot.envs.pusht import bare

    return bare(obs_type)


@pytest.fixture
def make():
    """Cores that end with the test."""
    made = []

    def one(*args, **kwargs):
        made.append(make_core(*args, **kwargs))
        return made[-1]

    yield one
    for core in made:
        core.close()


def wander(core, chunks, n=4, seed=0):
    """Targets that move over the whole plane, (K, N, n, 2)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(20, 490, (chunks, core.num_envs, 1, 2)).repeat(n, 2)


@pytest.mark.parametrize("obs_type", ["state", "environment_state_agent_pos", "pixels_agent_pos"])
def test_equals_gym_pusht(make, obs_type):
    core = make(PUSHT, 2, obs_type=obs_type)
    assert (core.spec.max_steps, core.spec.control_hz, core.spec.id) == (300, 10.0, PUSHT)
    assert core.spec.action.low == (0.0, 0.0)
    assert core.spec.action.high == (512.0, 512.0)
    assert core.spec.signals == ("success", "coverage")
    chunks = wander(core, 15)
    first, steps = core.reset([3, 4]), [core.step(chunk) for chunk in chunks]
    moved = 0
    for slot in range(2):
        env = reference(obs_type)
        obs, _ = env.reset(seed=3 + slot)
        check(first, (slot,), obs)
        for step, chunk in zip(steps, chunks, strict=True):
            for k in range(4):
                obs, reward, _, _, info = env.step(chunk[slot, k].astype(np.float32).astype(np.float64))
                check(step.obs, (slot, k), obs)
                assert step.reward[slot, k] == pytest.approx(reward, abs=1e-6)
                assert step.signals["coverage"][slot, k] == info["coverage"]
                moved += info["n_contacts"] > 0
    assert moved > 3


def check(ours, index, theirs):
    for name, value in (theirs if isinstance(theirs, dict) else {"state": theirs}).items():
        np.testing.assert_array_equal(ours["image" if name == "pixels" else name][index], value)


def test_sparse_rewards_and_ends():
    covered = np.array([0.5, COVERED, 0.96])
    kept = PushT(reward_type="penalty", terminate_on_success=False).outcome(covered)
    np.testing.assert_array_equal(kept["reward"], [-1, -1, 0])
    np.testing.assert_array_equal(kept["success"], [0, 0, 1])
    assert not kept["terminated"].any()
    ended = PushT().outcome(covered)
    np.testing.assert_allclose(ended["reward"], [0.5 / COVERED, 1, 1])
    np.testing.assert_array_equal(ended["terminated"], [False, False, True])


def test_coverage_of_a_state():
    """In place it is one, moved off it is none, and the state is what is seen."""
    env = Judged(reference(), PushT())
    env.reset(seed=0)
    for state, wanted in (((100.0, 100, 256, 256, np.pi / 4), 1.0), ((100.0, 100, 400, 100, 1.0), 0.0)):
        seen, coverage = look(env, np.array(state))
        assert coverage == pytest.approx(wanted, abs=1e-9)
        np.testing.assert_allclose(seen, state, atol=1e-9)


def test_a_step_is_judged_as_the_environment_judges_it(make):
    core = make(PUSHT, 6)
    state, steps = core.reset(range(6))["state"], []
    for _ in range(8):
        steps.append(core.step(state[:, None, 2:4].repeat(4, 1)))  # drive at the block
        state = steps[-1].final_obs["state"]
    found = PushT().relabel({"state": np.concatenate([step.obs["state"].reshape(-1, 5) for step in steps])})
    reward = np.concatenate([step.reward.reshape(-1) for step in steps])
    np.testing.assert_allclose(found["reward"], reward, atol=1e-6)
    assert len(np.unique(reward.round(3))) > 5


def test_states_are_restored_by_replay(make):
    core = make(PUSHT, 1)
    core.reset([1])
    chunks = wander(core, 6)
    for chunk in chunks[:3]:
        core.step(chunk)
    state = core.get_state()
    ahead = [core.step(chunk).final_obs["state"] for chunk in chunks[3:]]
    core.set_state(state)
    np.testing.assert_array_equal(ahead, [core.step(chunk).final_obs["state"] for chunk in chunks[3:]])


def test_demonstrations_fit_the_environment(shared_data, make):
    """Corners follow from the recorded state, rewards from the next one; the last states nearly cover the goal."""
    keywords = {"obs_type": "environment_state_agent_pos"}
    spec = make(PUSHT, 1, **keywords).spec
    demos = load(shared_data / "demos" / "pusht_v7_human_lowdim.npz").select([0, 1, 2])
    fitted, notes = conform(demos, spec, PushT(**keywords))
    assert fitted.obs_keys == ("observation.agent_pos", "observation.environment_state")
    assert len(fitted) == 3
    assert fitted.num_steps == demos.num_steps
    np.testing.assert_array_equal(fitted.data["observation.agent_pos"], demos.data["observation.state"][:, :2])
    last = fitted.data["next.coverage"][fitted.ends - 1]
    assert (last > 0.8).all()
    assert (fitted.data["next.coverage"][fitted.starts] < 0.5).all()
    assert fitted.attrs["fps"] == 10
    assert any("n_contacts" in note for note in notes)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"obs_type": "pixels"}, "obs_type of PushT 'pixels'"),
        ({"reward_type": "dense"}, "reward_type of PushT 'dense'"),
        ({"block_cog": 1}, "keyword of gym_pusht/PushT-v0 'block_cog'"),
    ],
)
def test_bad_keywords(keywords, message):
    with pytest.raises(UserError, match=message):
        make_core(PUSHT, 1, **keywords)


def test_pictures_of_recorded_states_are_those_that_were_recorded(shared_data):
    """Lines of one pixel are drawn otherwise by the versions of the renderer; nothing else."""
    with np.load(shared_data / "demos/pusht_v7_human_img.npz") as file:
        recorded = file["img_000"][::10]
    with np.load(shared_data / "demos/pusht_v7_human_lowdim.npz") as file:
        state = file["state"][:161:10]
    told = PushT(obs_type="pixels_agent_pos").relabel({"state": state})
    assert (told["image"].shape, told["image"].dtype) == (recorded.shape, np.uint8)
    different = (np.abs(told["image"].astype(int) - recorded).max(-1) > 30).mean((1, 2))
    assert different.max() < 0.005
    assert (np.abs(told["image"][0].astype(int) - recorded[-1]).max(-1) > 30).mean() > 0.03
    np.testing.assert_array_equal(told["agent_pos"], state[:, :2])
