"""robosuite's tasks: starts, states, rewards, robomimic's descriptions, and real human demonstrations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from noisepilot.datasets.readers import load
from noisepilot.envs import make_core
from noisepilot.envs.robosuite import Manipulation, Robosuite
from noisepilot.envs.robosuite_build import installed, osc, place
from noisepilot.envs.robosuite_demos import Demonstrations
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data

from .common import expert_success, need

need("robosuite")
# robosuite, at its first import
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "SyntaxWarning")]
LIFT = "robosuite/Lift"
HUMAN = "robosuite_lift_panda_human3.hdf5"


def env_args(**keywords) -> str:
    """As robomimic stores it."""
    control = {"has_renderer": False, "controller_configs": osc("OSC_POSE", True), "robots": ["Panda"]}
    described = {**control, "control_freq": 20, "use_camera_obs": False, "reward_shaping": False, **keywords}
    return json.dumps({"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": described})


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


def wander(core, n=6, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (core.num_envs, n, core.spec.action.dim))


@pytest.mark.parametrize(
    ("task", "objects", "arms", "limit"),
    [("Can", 14, 1, 400), ("Square", 14, 1, 400), ("ToolHang", 44, 1, 700), ("Transport", 41, 2, 700)],
)
def test_tasks_as_robomimic_has_them(make, task, objects, arms, limit):
    core = make(f"robosuite/{task}", 1)
    spec = core.spec
    parts = {"eef_pos": (3,), "eef_quat": (4,), "gripper_qpos": (2,)}
    wanted = {f"robot{arm}_{name}": shape for arm in range(arms) for name, shape in parts.items()}
    assert {name: array.shape for name, array in spec.obs.items()} == {"object": (objects,), **wanted}
    assert next(iter(spec.obs)) == "object"
    assert (spec.action.dim, spec.control_hz, spec.max_steps, spec.signals) == (7 * arms, 20, limit, ("success",))
    assert spec.action.names[-1].endswith("gripper")
    assert spec.action.unit.startswith("1 is 0.05 m or 0.5 rad")
    first = core.reset([5])
    step = core.step(wander(core))
    assert (step.reward == 0).all()
    again = core.reset([5])
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(step.final_obs[name], value)


def test_an_episode_follows_from_its_seed_alone(make):
    """Whatever was played before, in whatever slot: the same start, and the same way from there."""
    two, one = make(LIFT, 2), make(LIFT, 1)
    two.reset([3, 4])
    two.step(wander(two))
    first = two.reset([8], [1])
    moved = two.step(wander(two))
    alone = one.reset([8])
    for name, value in first.items():
        np.testing.assert_array_equal(value, alone[name])
    step = one.step(wander(two)[1:])
    np.testing.assert_array_equal(step.obs["object"][0], moved.obs["object"][1])
    assert not np.array_equal(one.reset([9])["object"], alone["object"])


@pytest.mark.parametrize("task", ["Lift", "TwoArmTransport"])
def test_quicker_steps_are_the_same_to_the_bit(task, monkeypatch):
    envs = [Manipulation(Robosuite(task=task)) for _ in range(2)]
    envs[0].reset(seed=0)
    monkeypatch.setattr("noisepilot.envs.robosuite.quicken", lambda env: None)
    envs[1].reset(seed=0)
    assert ["step" in vars(env.simulator.sim) for env in envs] == [installed() < (1, 5), False]
    rng = np.random.default_rng(0)
    size = len(envs[0].simulator.action_spec[0])
    for _ in range(30):
        action = envs[0].expert() if task == "Lift" else rng.uniform(-1, 1, size)
        ours, theirs = (env.step(action) for env in envs)
        np.testing.assert_array_equal(envs[0].physics(), envs[1].physics())
        for name, value in ours[0].items():
            np.testing.assert_array_equal(value, theirs[0][name])
    for env in envs:
        env.close()


def test_states_are_restored_and_started_from(make):
    core = make(LIFT, 2)
    core.reset([3, 4])
    core.step(wander(core))
    state = core.get_state()
    ahead = core.step(wander(core, seed=1)).obs
    core.reset([5, 6], state=state)  # the last state as the start of another episode
    start = core.get_state()
    np.testing.assert_allclose(start["physics"], state["physics"], atol=1e-12)
    np.testing.assert_array_equal(start["start"], state["physics"])
    core.step(wander(core))
    later = core.get_state()
    core.set_state(state)
    for name, value in core.step(wander(core, seed=1)).obs.items():
        np.testing.assert_array_equal(value, ahead[name])
    core.set_state(later)
    np.testing.assert_allclose(core.get_state()["physics"], later["physics"], atol=1e-12)
    with pytest.raises(UserError, match=r"states of shape \(1, 32\), got \(1, 5\)"):
        core.reset([0], [0], {"physics": np.zeros((1, 5))})


@pytest.mark.parametrize(
    ("reward_type", "before", "after"), [("success", 0, 1), ("penalty", -1, 0), ("dense", None, 1)]
)
def test_rewards_and_ends(reward_type, before, after):
    """A cube held in the air counts as lifted."""
    env = Manipulation(Robosuite(reward_type=reward_type))
    env.reset(seed=0)
    rest = np.zeros(7)
    _, reward, terminated, _, info = env.step(rest)
    assert (terminated, info["success"]) == (False, False)
    assert 0 < reward < 0.5 if before is None else reward == before
    lifted = env.physics()
    lifted[1 + 9 + 2] += 0.2  # behind the time and nine joints of arm and gripper: the cube's height
    place(env.simulator, lifted)
    _, reward, terminated, _, info = env.step(rest)
    assert (reward, terminated, info["success"]) == (after, True, True)
    env.close()


def test_built_from_a_description(make, tmp_path):
    plain, described = make(LIFT, 1), make(LIFT, 1, env_args=env_args())
    np.testing.assert_array_equal(plain.reset([2])["object"], described.reset([2])["object"])
    np.testing.assert_array_equal(plain.step(wander(plain)).obs["object"], described.step(wander(plain)).obs["object"])
    (tmp_path / "args.json").write_text(env_args(control_freq=10, controller_configs=osc("OSC_POSITION", True)))
    other = make(LIFT, 1, env_args=str(tmp_path / "args.json"))
    assert (other.spec.control_hz, other.spec.action.dim) == (10, 4)
    assert json.loads(other.spec.kwargs["env_args"])["env_kwargs"]["control_freq"] == 10


def test_absolute_actions_go_where_they_say(make):
    core = make(LIFT, 1, delta=False)
    assert core.spec.action.low is not None
    assert core.spec.action.low[:3] == (-np.inf,) * 3
    obs = core.reset([0])
    there = obs["robot0_eef_pos"][0] + (0.05, -0.05, 0.05)
    rotation = np.pi / np.sqrt(2) * np.array([1, 1, 0])  # the gripper looks down, as it did
    step = core.step(np.tile([*there, *rotation, -1], (1, 40, 1)))
    np.testing.assert_allclose(step.final_obs["robot0_eef_pos"][0], there, atol=0.01)


def test_pictures(make, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    core = make(LIFT, 1, cameras=["agentview", "robot0_eye_in_hand"], image_height=48, image_width=64)
    assert core.spec.obs["images.agentview"].shape == (48, 64, 3)
    lit = core.reset([0])
    assert lit["images.agentview"].dtype == np.uint8
    assert lit["images.agentview"].std() > 10
    plain = make(LIFT, 1, cameras=["agentview"], image_height=48, image_width=64, effects=False)
    assert plain.spec.kwargs["effects"] is False
    assert not np.array_equal(plain.reset([0])["images.agentview"], lit["images.agentview"])
    assert core.render(0, 160, 120).shape == (120, 160, 3)


def test_human_demonstrations(shared_data):
    """Recorded states are seen to succeed in all, recorded actions lead there again in two of three."""
    pytest.importorskip("h5py", reason="pip install 'noisepilot[hdf5]'")
    file = str(shared_data / "demos" / HUMAN)
    demos = Demonstrations(file)
    env = Manipulation(Robosuite(env_args=file, init_states=file))
    seen, played = [], []
    for index in range(len(demos)):
        states, actions = demos.episode(index)
        env.reset(seed=index)
        np.testing.assert_array_equal(env.physics(), states[0])
        played.append(any(env.step(action)[4]["success"] for action in actions))
        place(env.simulator, states[-1])
        seen.append(bool(env.simulator._check_success()))
    env.close()
    assert seen == [True] * 3
    assert sum(played) == 2


def test_the_expert_lifts(make):
    assert expert_success(LIFT) == 4
    core = make("robosuite/Can", 1)
    core.reset([0])
    with pytest.raises(UserError, match="scripted expert is for Lift"):
        core.expert()


def test_human_demonstrations_are_seen_as_the_environment_sees(shared_data, tmp_path):
    pytest.importorskip("h5py", reason="pip install 'noisepilot[hdf5]'")
    file = str(shared_data / "demos" / HUMAN)
    keywords = json.dumps({"reward_type": "penalty"})
    assert data(["convert", file, str(tmp_path / "h.zarr"), "--env", LIFT, "--env-kwargs", keywords]) == 0
    seen = load(str(tmp_path / "h.zarr"))
    assert seen.success_rate() == 1.0
    assert seen.data["next.terminated"][seen.ends - 1].all()
    np.testing.assert_array_equal(seen.data["next.reward"], seen.data["next.success"] - 1)
    states, _ = Demonstrations(file).episode(0)
    cube = seen.data["observation.object"][0, :3]
    np.testing.assert_allclose(cube, states[0, 1 + 9 : 1 + 12], atol=1e-5)
    assert seen.data["observation.robot0_eef_pos"].std() > 0.01


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"controller": "OSC_POS"}, "controller of robosuite 'OSC_POS'"),
        ({"reward_type": "sparse"}, "reward_type of robosuite 'sparse'"),
        ({"cameras": "agentview"}, "cameras of robosuite/Lift cannot be 'agentview': expected a list of names"),
        ({"env_args": "{}"}, "env_args lacks env_name"),
        ({"env_args": "nowhere.json"}, "there is no file nowhere.json"),
        ({"env_args": env_args().replace('"Lift"', '"Stack"')}, "describes Stack, not Lift"),
        ({"env_args": env_args().replace('"type": 1', '"type": 2')}, "not an environment of robosuite"),
        ({"init_states": "nowhere.hdf5"}, "there is no file nowhere.hdf5"),
    ],
)
def test_bad_keywords(keywords, message):
    with pytest.raises(UserError, match=message):
        make_core(LIFT, 1, **keywords)
