import numpy as np
import pytest

from noisepilot.config import to_dict
from noisepilot.datasets.checks import check
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.spec import ArraySpec, EnvSpec

from .sets import make

SPEC = EnvSpec(
    "Toy-v0",
    {"state": ArraySpec((3,)), "goal": ArraySpec((2,))},
    ArraySpec((2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    control_hz=10.0,
    max_steps=100,
)


def changed(**arrays):
    """The toy set with keys (dots as double underscores) replaced."""
    base = make((9, 8, 7))
    data = dict(base.data) | {key.replace("__", "."): value for key, value in arrays.items()}
    return Episodes(data, base.ends, base.attrs)


def faults(episodes, spec: EnvSpec | None = SPEC):
    return [(f.level, f.key, f.message) for f in check(episodes, spec) if f.level != "info"]


def only(episodes, spec: EnvSpec | None = SPEC):
    (found,) = faults(episodes, spec)
    return found


def test_a_sound_set_has_no_faults_and_states_its_lengths():
    episodes = make((9, 8, 7))
    assert faults(episodes) == []
    assert any("3 episodes of 7 to 9 steps (median 8), 24 in all" in f.message for f in check(episodes))


def test_nan_names_key_and_episodes():
    reward = make((9, 8, 7)).data["next.reward"].copy()
    reward[[10, 20]] = np.nan
    assert only(changed(next__reward=reward)) == (
        "error",
        "next.reward",
        "2 steps hold NaN or infinity, in episodes 1, 2: drop or repair them",
    )


def test_actions_outside_and_at_the_limits():
    action = np.zeros((24, 2), np.float32)
    action[:, 1] = np.linspace(-0.9, 0.9, 24)
    action[0] = 0.1, 1.5
    level, key, message = only(changed(action=action))
    assert (level, key) == ("error", "action")
    assert message == "4.17 % of steps exceed the limits, in dimensions 1: clip or rescale them"
    action[0] = 1
    assert faults(changed(action=action)) == []
    action[:14, 0] = -1
    level, _, message = only(changed(action=action))
    assert level == "warning"
    assert "% of the elements lie at a limit" in message


def test_limits_of_the_set_itself_serve_without_an_environment():
    base = make((9, 8, 7))
    wide = {**base.data, "action": 3 * base.data["action"]}
    attrs = {**base.attrs, "specs": to_dict({"action": SPEC.action})}
    levels = [(level, message) for level, _, message in faults(Episodes(wide, base.ends, attrs), None)]
    assert levels[0][0] == "error"
    assert "exceed the limits" in levels[0][1]


def test_constant_dimensions_and_zero_rewards_and_rate():
    state = make((9, 8, 7)).data["observation.state"].copy()
    state[:, 1] = 4
    assert only(changed(observation__state=state))[1:] == (
        "observation.state",
        "dimensions 1 of 3 never change: check the recording or drop them",
    )
    assert "zero everywhere" in only(changed(next__reward=np.zeros(24)))[2]
    base = make((9, 8, 7))
    slow = Episodes(base.data, base.ends, {**base.attrs, "fps": 30})
    assert only(slow)[2] == "30, but Toy-v0 acts at 10 Hz: resample or correct the attribute"


def test_lengths_flags_shapes_and_duplicates():
    base = make((9, 8, 7))
    empty = Episodes(base.data, np.array([9, 9, 10, 24]), base.attrs)
    messages = [message for _, _, message in faults(empty)]
    assert "episodes 1 have no steps: drop them" in messages
    assert "episodes 2 have one step: check how episodes were cut" in messages
    assert "set on 1 steps inside episodes: cut the episodes there" in messages

    narrow = changed(observation__state=base.data["observation.state"][:, :2])
    assert only(narrow)[2] == "shape (2,), but Toy-v0 has (3,): choose its environment"
    absent = Episodes({k: v for k, v in base.data.items() if k != "observation.goal"}, base.ends, base.attrs)
    assert only(absent)[1:] == (
        "observation.goal",
        "absent, but Toy-v0 has it: choose the environment the set is from",
    )

    twice = base.select([0, 1, 0, 2, 1])
    assert [m for _, _, m in faults(twice)] == ["2 episodes repeat an earlier one (2, 4): drop them, or vary the seed"]


def test_a_set_of_another_environment_of_equal_shapes():
    base = make((9, 8, 7))
    assert only(Episodes(base.data, base.ends, {**base.attrs, "env": "Toys-v0"})) == (
        "error",
        "env",
        "recorded in Toys-v0, not in Toy-v0: say --env Toys-v0, or if they are meant for it, "
        "`noisepilot data convert SOURCE TARGET --env Toy-v0`",
    )
    for known in ("Toy-v1", ""):
        assert faults(Episodes(base.data, base.ends, {**base.attrs, "env": known})) == []


@pytest.mark.parametrize(("shift", "where"), [(0, None), (1, "after"), (-1, "before")])
def test_shifted_actions_are_noticed(shift, where):
    rng = np.random.default_rng(0)
    action = rng.normal(size=(600, 2))
    state = np.concatenate([np.zeros((1, 2)), np.cumsum(action, 0)[:-1]])
    data = {"observation.state": state, "action": np.roll(action, shift, 0), "next.reward": np.ones(600)}
    found = [m for _, _, m in faults(Episodes(data, np.array([300, 600]), {"fps": 10}), None)]
    hint = f"the action one row {where} explains each observation's change better: shift the actions by one row"
    assert found == ([] if where is None else [hint])


@pytest.mark.parametrize("what", ["is zero", "repeats the one before"])
def test_filled_in_last_actions_are_noticed(what):
    episodes = make((4,) * 8)
    last = episodes.ends - 1
    action = episodes.data["action"].copy()
    action[last] = 0 if what == "is zero" else action[last - 1]
    filled = Episodes({**episodes.data, "action": action}, episodes.ends, episodes.attrs)
    assert only(filled)[2] == f"the last action of 100 % of the episodes {what}: if filled in, drop the step"


@pytest.mark.parametrize("name", ["hopper-medium-regen.hdf5", "halfcheetah-medium-regen.hdf5"])
def test_real_sets_are_sound(shared_data, name):
    assert faults(load(shared_data / "demos/d4rl_style" / name), None) == []


def test_real_human_demonstrations_raise_no_alarm(shared_data):
    for name in ("pusht_v7_human_lowdim.npz", "adroit_door_human25.npz"):
        assert faults(load(shared_data / "demos" / name), None) == []


def test_real_set_with_shifted_actions(shared_data):
    episodes = load(shared_data / "demos/d4rl_style/hopper-medium-regen.hdf5")
    late = Episodes({**episodes.data, "action": np.roll(episodes.data["action"], 1, 0)}, episodes.ends)
    assert "one row after" in only(late, None)[2]
