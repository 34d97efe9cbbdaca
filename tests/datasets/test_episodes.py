import numpy as np
import pytest

from noisepilot.config import to_dict
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.datasets.resident import Resident
from noisepilot.datasets.source import collect
from noisepilot.errors import UserError
from noisepilot.spec import ArraySpec

from .sets import make


def test_written_and_read_back_equal(tmp_path):
    episodes = make()
    episodes.write(tmp_path / "set")
    again = load(tmp_path / "set")
    assert again.hash() == episodes.hash()
    assert again.attrs == {**episodes.attrs, "schema": 1}
    assert all(again.data[key].dtype == value.dtype for key, value in episodes.data.items())
    for key, value in episodes.final.items():
        np.testing.assert_array_equal(again.final[key], value)


def test_write_refuses_to_replace(tmp_path):
    make().write(tmp_path / "set")
    with pytest.raises(UserError, match=r"set exists already: choose another path"):
        make().write(tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_hash_sees_values_boundaries_types_and_names():
    base = make()
    changed = dict(base.data)
    changed["action"] = base.data["action"].copy()
    changed["action"][3, 1] += 1
    others = [
        Episodes(changed, base.ends, {}, base.final),
        Episodes(base.data, np.array([4, 6, 13]), {}, base.final),
        Episodes({**base.data, "action": base.data["action"].astype(np.float64)}, base.ends, {}, base.final),
        Episodes(base.data, base.ends, {}),
    ]
    assert len({episodes.hash() for episodes in [base, *others]}) == 5
    assert Episodes(base.data, base.ends, {"env": "other"}, base.final).hash() == base.hash()


def test_lengths_returns_and_success():
    episodes = make((5, 1, 7))
    assert len(episodes) == 3
    assert episodes.num_steps == 13
    assert episodes.lengths.tolist() == [5, 1, 7]
    assert episodes.returns().tolist() == [5, 1, 7]
    assert episodes.success_rate() == pytest.approx(1 / 3)


def test_next_obs_shifts_inside_episodes_and_ends_with_the_final_one():
    episodes = make((3, 1, 2))
    following = episodes.next_obs("state")
    state, final = episodes.data["observation.state"], episodes.final["observation.state"]
    np.testing.assert_array_equal(following, np.stack([state[1], state[2], final[0], final[1], state[5], final[2]]))
    without = Episodes(episodes.data, episodes.ends).next_obs("state")
    np.testing.assert_array_equal(without[[2, 3, 5]], state[[2, 3, 5]])


def test_stats_by_hand():
    data = {"observation.state": np.arange(101.0)[:, None], "action": np.zeros((101, 1))}
    stats = Episodes(data, np.array([101])).stats("observation.state")
    assert [float(x[0]) for x in (stats.min, stats.max, stats.mean, stats.q01, stats.q99)] == [
        0,
        100,
        50,
        1,
        99,
    ]
    assert stats.std[0] == pytest.approx(np.arange(101.0).std())


def test_stats_of_pictures_in_pieces_are_those_of_the_whole(monkeypatch):
    value = np.random.default_rng(0).integers(0, 255, (50, 4, 5, 3), np.uint8)
    episodes = Episodes({"action": np.zeros((50, 1)), "observation.image": value}, np.array([50]))
    monkeypatch.setattr("noisepilot.datasets.episodes.STATS_NUMBERS", 50 * 7)
    stats = episodes.stats("observation.image")
    np.testing.assert_array_equal(stats.q99, np.quantile(value, 0.99, axis=0))
    np.testing.assert_array_equal(stats.std, value.std(0))
    assert stats.min.shape == (4, 5, 3)


def test_split_parts_every_episode_once_and_repeats_by_seed():
    episodes = make((2, 3, 4, 5, 6))
    train, held_out = episodes.split(0.4, seed=3)
    assert (len(train), len(held_out)) == (3, 2)
    assert sorted([*train.lengths, *held_out.lengths]) == [2, 3, 4, 5, 6]
    assert episodes.split(0.4, seed=3)[1].hash() == held_out.hash()
    assert len(episodes.split(0.01, seed=0)[1]) == 1


def test_select_keeps_rows_and_final_observations():
    episodes = make((2, 3, 4))
    chosen = episodes.select([2, 0])
    np.testing.assert_array_equal(chosen.data["action"][:4], episodes.data["action"][5:])
    np.testing.assert_array_equal(chosen.final["observation.goal"], episodes.final["observation.goal"][[2, 0]])


def test_specs_come_from_the_attributes_else_from_the_shapes():
    episodes = make()
    assert episodes.obs_specs() == {"state": ArraySpec((3,)), "goal": ArraySpec((2,))}
    spec = ArraySpec((2,), ("x", "y"), (-1.0, -1.0), (1.0, 1.0), "N")
    attrs = {"specs": to_dict({"action": spec})}
    assert Episodes(episodes.data, episodes.ends, attrs).action_spec() == spec


def bad_sets():
    data = dict(make((2, 3)).data)
    ends = np.array([2, 5])
    yield data | {"action": np.zeros((4, 2))}, ends, r"'action' has shape \(4, 2\).*one row per step: 5"
    yield {k: v for k, v in data.items() if k != "action"}, ends, r"needs 'action': found next.reward"
    yield {"action": np.zeros((5, 2))}, ends, r"needs an 'observation.<name>': found action"
    yield data | {"action": np.zeros(5)}, ends, r"'action' has shape \(5,\).*\(steps, action dimension\)"
    yield data | {"next.reward": np.zeros((5, 2))}, ends, r"'next.reward' has shape \(5, 2\)"
    yield data | {"observation.state": np.zeros((5, 0))}, ends, r"'observation.state'.*leave the key out"
    yield data | {"observation.state": np.array(list("abcde"))}, ends, r"type <U1: only numbers"
    yield data, np.array([3, 2]), r"episode_ends must not decrease"
    yield data, np.array([], np.int64), r"at least one episode"
    yield {k: v[:0] for k, v in data.items()}, np.array([0]), r"holds no steps"


@pytest.mark.parametrize(("data", "ends", "message"), list(bad_sets()))
def test_bad_sets_are_named(data, ends, message):
    with pytest.raises(UserError, match=message) as error:
        Episodes(data, ends)
    assert "\n" not in str(error.value)


def test_bad_requests_are_named():
    episodes = make((2, 3))
    with pytest.raises(UserError, match=r"toy has no 'reward': it has action"):
        episodes.stats("reward")
    with pytest.raises(UserError, match=r"held-out fraction of 1.0 .* inside \(0, 1\)"):
        episodes.split(1.0, seed=0)
    with pytest.raises(UserError, match="has one episode and cannot be split"):
        episodes.select([0]).split(0.5, seed=0)
    bare = Episodes({k: v for k, v in episodes.data.items() if k != "next.reward"}, episodes.ends)
    with pytest.raises(UserError, match="has no rewards"):
        bare.returns()


def test_a_set_in_memory_is_a_source():
    base = make((4, 3))
    source = Resident(base)
    assert collect(source) is base
    assert [len(episode.data["action"]) for episode in source.episodes(1)] == [3]
