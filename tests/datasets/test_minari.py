import json
import warnings

import numpy as np
import pytest

from noisepilot.datasets.readers import load
from noisepilot.errors import UserError

from .trips import there_and_back

minari = pytest.importorskip("minari", reason="pip install 'minari[hdf5,arrow]'")
pytest.importorskip("pyarrow", reason="pip install 'noisepilot[lerobot]'")

KINDS = ("hdf5", "arrow", "parquet")
LENGTHS = (5, 1, 12)


def spaces():
    from gymnasium.spaces import Box, Dict, Tuple

    reals = Box(-np.inf, np.inf, (2,))
    nested = {"state": reals, "goal": Dict({"xy": reals}), "pair": Tuple((reals, Box(-1, 1, (2, 3))))}
    return Dict({**nested, "cam": Box(0, 255, (8, 8, 3), np.uint8)}), Box(-1, 1, (2,))


def buffers():
    from minari.data_collector.episode_buffer import EpisodeBuffer

    obs, action = spaces()
    for seed, space in enumerate((obs, action)):
        space.seed(seed)
    for i, length in enumerate(LENGTHS):
        rows = [obs.sample() for _ in range(length + 1)]
        goal = {"xy": np.stack([row["goal"]["xy"] for row in rows])}
        pair = tuple(np.stack([row["pair"][j] for row in rows]) for j in range(2))
        plain = {key: np.stack([row[key] for row in rows]) for key in ("state", "cam")}
        plain["cam"][:] = np.arange(length + 1, dtype=np.uint8)[:, None, None, None]  # flat: JPEG keeps it
        last = np.arange(length) == length - 1
        yield EpisodeBuffer(
            id=i,
            observations={**plain, "goal": goal, "pair": pair},
            actions=np.stack([action.sample() for _ in range(length)]),
            rewards=list(np.arange(length, dtype=float)),
            terminations=list(last & (i == 0)),
            truncations=list(last & (i != 0)),
            infos={"success": list(np.arange(length + 1) == length)},
        )


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def write(kind):
        obs, action = spaces()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                f"toy/{kind}-v0", list(buffers()), observation_space=obs, action_space=action, data_format=kind
            )
        return tmp_path / "toy" / f"{kind}-v0"

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_minari_and_we_read_the_same(stored, kind):
    path = stored(kind)
    episodes = load(path)
    assert episodes.lengths.tolist() == list(LENGTHS)
    assert sorted(episodes.obs_specs()) == ["goal.xy", "images.cam", "pair.0", "pair.1", "state"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = list(minari.load_dataset(f"toy/{kind}-v0").iterate_episodes())
    for i, (ours, episode) in enumerate(zip(episodes, theirs, strict=True)):
        np.testing.assert_array_equal(ours["action"], episode.actions)
        np.testing.assert_array_equal(ours["next.reward"], episode.rewards)
        np.testing.assert_array_equal(ours["next.terminated"], episode.terminations)
        np.testing.assert_array_equal(ours["next.truncated"], episode.truncations)
        for key, value in (
            ("state", episode.observations["state"]),
            ("goal.xy", episode.observations["goal"]["xy"]),
            ("pair.1", episode.observations["pair"][1]),
            ("images.cam", episode.observations["cam"]),
        ):
            np.testing.assert_array_equal(ours[f"observation.{key}"], value[:-1])
            np.testing.assert_array_equal(episodes.final[f"observation.{key}"][i], value[-1])
    assert episodes.success_rate() == 1
    assert episodes.action_spec().high == (1.0, 1.0)
    assert load(path / "data").hash() == episodes.hash()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_come_back_from_lerobot(stored, tmp_path, kind):
    path = stored(kind)
    episodes = there_and_back(path, tmp_path)
    np.testing.assert_array_equal(episodes.data["observation.state"], load(path).data["observation.state"])


def change_metadata(path, **changes):
    file = path / "data/metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_faults_are_named(stored):
    path = stored("hdf5")
    change_metadata(path, total_episodes=4)
    with pytest.raises(UserError, match="hdf5-v0: 'episode_3' is missing, which the metadata counts"):
        load(path)
    change_metadata(path, action_space='{"type": "Discrete", "n": 3}')
    with pytest.raises(UserError, match="has actions Discrete, but a policy's action is a vector"):
        load(path)
    for space in ("[1]", '{"type": "Box"}', '{"type": "Box", "shape": [1], "low": ["x"], "high": [1]}', "[" * 50_000):
        change_metadata(path, action_space=space)
        with pytest.raises(UserError, match="is not Minari's metadata"):
            load(path)
    change_metadata(path, action_space="", total_episodes=-1)
    with pytest.raises(UserError, match="holds no episodes"):
        load(path)
    (path / "data/metadata.json").write_text("{")
    with pytest.raises(UserError, match="is not Minari's metadata"):
        load(path)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_cut_off_tables_are_named(stored, kind):
    path = stored(kind)
    table = next((path / "data/1").glob("part*"))
    table.write_bytes(table.read_bytes()[:-200])
    with pytest.raises(UserError, match="1 is not readable") as error:
        load(path)
    assert "\n" not in str(error.value)
