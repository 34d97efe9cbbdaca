"""Sets written as LeRobot v3.0 folders: what the files say, what comes back, and that none is ever half there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from noisepilot.config import to_dict
from noisepilot.datasets import lerobot, lerobot_files, lerobot_stats, lerobot_writer
from noisepilot.datasets.source import Recorded
from noisepilot.errors import UserError
from noisepilot.spec import ArraySpec

pq = pytest.importorskip("pyarrow.parquet", reason="pip install 'noisepilot[lerobot]'")
pytest.importorskip("av", reason="pip install 'noisepilot[lerobot]'")

CAMERA = "observation.images.front"
LENGTHS = (12, 5, 30)
BOUND = {"mean": 2.5, "max": 24}
"""how far h264 may be off, of 255, on smooth pictures"""


class Listed:
    """Episodes in memory as a source."""

    def __init__(self, recorded, **attrs):
        self.recorded = recorded
        specs = to_dict({"action": ArraySpec((2,), ("x", "y"), (-1.0, -1.0), (1.0, 1.0), "m")})
        self.attrs = {"env": "Toy-v0", "fps": 10.0, "source": "toy", "licence": "MIT", "specs": specs, **attrs}

    def __len__(self):
        return len(self.recorded)

    def episodes(self, start=0):
        return iter(self.recorded[start:])


def episode(steps, seed=0, size=(32, 48)):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    time = np.arange(steps)[:, None, None]
    planes = (columns + 5 * time, rows + 3 * time + seed, rows + columns + 0 * time)
    last = np.arange(steps) == steps - 1
    data = {
        "observation.state": rng.normal(size=(steps, 3)).astype(np.float32),
        "observation.grip": rng.normal(size=(steps, 1)),
        "observation.map": rng.integers(0, 9, (steps, 2, 3)),
        CAMERA: np.stack([127.5 * (1 + np.sin(plane / 40)) for plane in planes], -1).astype(np.uint8),
        "action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "next.reward": rng.normal(size=steps).astype(np.float32),
        "next.terminated": last & (seed == 0),
        "next.truncated": last & (seed > 0),
    }
    return Recorded(data, {"observation.state": np.ones(3, np.float32)})


@pytest.fixture(scope="module")
def source():
    return Listed([episode(n, i) for i, n in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def exact(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "set"
    assert lerobot_writer.write(path, source, codec="lossless") == sum(LENGTHS)
    return path


def test_everything_comes_back(exact, source):
    back = lerobot.open_source(exact)
    for ours, theirs in zip(back.episodes(), source.episodes(), strict=True):
        assert ours.data.keys() == theirs.data.keys()
        for key, value in theirs.data.items():
            assert ours.data[key].dtype == value.dtype, key
            np.testing.assert_array_equal(ours.data[key], value, err_msg=key)
    specs = back.attrs["specs"]
    assert specs["action"] == source.attrs["specs"]["action"]
    assert {key: back.attrs[key] for key in ("env", "fps", "source", "licence")} == {
        key: source.attrs[key] for key in ("env", "fps", "source", "licence")
    }
    assert "left_out" not in back.attrs


def test_h264_is_close(source, tmp_path):
    lerobot_writer.write(tmp_path / "set", source)
    for ours, theirs in zip(lerobot.open_source(tmp_path / "set").episodes(), source.episodes(), strict=True):
        off = np.abs(ours.data[CAMERA].astype(int) - theirs.data[CAMERA])
        assert off.mean() < BOUND["mean"]
        assert off.max() <= BOUND["max"]
        np.testing.assert_array_equal(ours.data["action"], theirs.data["action"])


def test_what_lerobot_expects_is_there(exact):
    info = json.loads((exact / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["fps"] == 10
    assert isinstance(info["fps"], int)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, sum(LENGTHS), 1)
    assert info["splits"] == {"train": "0:3"}
    features = info["features"]
    assert features[CAMERA]["dtype"] == "video"
    assert features[CAMERA]["names"] == ["height", "width", "channels"]
    assert features[CAMERA]["info"]["video.codec"] == "h264"
    assert features["action"] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    # lerobot casts each table to the declared features and fails on any other column
    table = pq.read_table(exact / "data/chunk-000/file-000.parquet")
    assert set(table.column_names) == {key for key, feature in features.items() if feature["dtype"] != "video"}
    assert table.column("index").to_pylist() == list(range(sum(LENGTHS)))
    done = np.array(table.column("next.done"))
    assert list(np.flatnonzero(done) + 1) == list(np.cumsum(LENGTHS))
    assert pq.ParquetFile(exact / "data/chunk-000/file-000.parquet").num_row_groups == 3


def test_episodes_say_where_they_are(exact):
    rows = pq.read_table(exact / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    ends = np.cumsum(LENGTHS)
    for i, row in enumerate(rows):
        assert row["episode_index"] == i
        assert row["tasks"] == ["Toy-v0"]
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (ends[i] - LENGTHS[i], ends[i])
        assert row[f"videos/{CAMERA}/from_timestamp"] == (ends[i] - LENGTHS[i]) / 10
        assert row[f"videos/{CAMERA}/to_timestamp"] == ends[i] / 10
        assert (row["data/chunk_index"], row["data/file_index"]) == (0, 0)
        assert row["stats/action/count"] == [LENGTHS[i]]


def test_tasks_are_the_index_of_a_pandas_table(exact):
    schema = pq.read_schema(exact / "meta/tasks.parquet")
    assert schema.pandas_metadata["index_columns"] == ["task"]
    assert schema.names == ["task_index", "task"]


def test_statistics_are_those_of_the_data(exact, source):
    stats = json.loads((exact / "meta/stats.json").read_text())
    whole = np.concatenate([recorded.data["action"] for recorded in source.recorded]).astype(np.float64)
    for name, value in (("min", whole.min(0)), ("max", whole.max(0)), ("mean", whole.mean(0)), ("std", whole.std(0))):
        np.testing.assert_allclose(stats["action"][name], value, rtol=1e-6)
    assert stats["action"]["count"] == [sum(LENGTHS)]
    assert np.shape(stats["next.reward"]["mean"]) == (1,)
    pixels = np.concatenate([recorded.data[CAMERA] for recorded in source.recorded]) / 255
    np.testing.assert_allclose(np.reshape(stats[CAMERA]["mean"], 3), pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.reshape(stats[CAMERA]["std"], 3), pixels.std((0, 1, 2)), rtol=1e-6)
    for name in ("min", "max", "mean", "std", *lerobot_stats.QUANTILES):
        assert np.shape(stats[CAMERA][name]) == (3, 1, 1)


def test_quantiles_of_one_episode_are_exact():
    value = np.random.default_rng(0).normal(size=(40, 2))
    stats = lerobot_stats.of_array(value)
    np.testing.assert_allclose(stats["q90"], np.quantile(value, 0.9, axis=0))
    same = lerobot_stats.merged(stats, stats)
    for name in ("q01", "q50", "mean", "std"):
        np.testing.assert_allclose(same[name], stats[name])


def test_large_files_are_followed_by_new_ones(source, tmp_path, monkeypatch):
    for name, value in (("DATA_MB", 0), ("VIDEO_MB", 0), ("CHUNK_FILES", 2)):
        monkeypatch.setattr(lerobot_files, name, value)
    lerobot_writer.write(tmp_path / "set", source, codec="lossless")
    assert len(list((tmp_path / "set/data").glob("*/*.parquet"))) == 3
    assert (tmp_path / f"set/videos/{CAMERA}/chunk-001/file-000.mp4").is_file()
    for ours, theirs in zip(lerobot.open_source(tmp_path / "set").episodes(), source.episodes(), strict=True):
        np.testing.assert_array_equal(ours.data[CAMERA], theirs.data[CAMERA])


def test_tasks_are_kept(tmp_path):
    recorded = episode(6)
    task = np.array([0, 0, 0, 1, 1, 1])
    two = Listed([Recorded({**recorded.data, "task_index": task})], tasks=["push", "lift"])
    lerobot_writer.write(tmp_path / "set", two)
    back = lerobot.open_source(tmp_path / "set")
    assert back.attrs["tasks"] == ["push", "lift"]
    np.testing.assert_array_equal(next(back.episodes()).data["task_index"], task)
    lerobot_writer.write(tmp_path / "named", Listed([recorded]), task="push the T")
    assert lerobot.open_source(tmp_path / "named").attrs["tasks"] == ["push the T"]


def test_a_rate_that_is_no_whole_number_and_none(tmp_path):
    lerobot_writer.write(tmp_path / "half", Listed([episode(40)], fps=12.5), codec="lossless")
    back = lerobot.open_source(tmp_path / "half")
    assert back.attrs["fps"] == 12.5
    np.testing.assert_array_equal(next(back.episodes()).data[CAMERA], episode(40).data[CAMERA])
    with pytest.raises(UserError, match="names no rate"):
        lerobot_writer.write(tmp_path / "none", Listed([episode(4)], fps=0))
    lerobot_writer.write(tmp_path / "given", Listed([episode(4)], fps=0), fps=20.0)
    assert lerobot.open_source(tmp_path / "given").attrs["fps"] == 20


@pytest.mark.parametrize(
    ("recorded", "settings", "message"),
    [
        ([episode(4)], {"codec": "h265"}, "unknown codec 'h265'"),
        ([episode(4, size=(31, 48))], {}, "even size only, not 31x48"),
        ([episode(4), episode(4, size=(32, 32))], {}, "episode 1: 'observation.images.front' is uint8"),
        ([Recorded({**episode(4).data, "observation.a/b": np.zeros((4, 1))})], {}, "no '/' in a name"),
        ([Recorded({**episode(4).data, "task_index": np.full(4, 3)})], {}, "'task_index' 3 has no text"),
        ([Recorded({**episode(4).data, "action": np.full((4, 2), np.nan)})], {}, "'action' holds a NaN"),
        ([], {}, "no episodes"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, recorded, settings, message):
    with pytest.raises(UserError, match=message) as refused:
        lerobot_writer.write(tmp_path / "set", Listed(recorded), **settings)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_fit_the_lossless_codec(tmp_path):
    odd = episode(4, size=(31, 47))
    lerobot_writer.write(tmp_path / "set", Listed([odd]), codec="lossless")
    back = next(lerobot.open_source(tmp_path / "set").episodes())
    np.testing.assert_array_equal(back.data[CAMERA], odd.data[CAMERA])


def test_a_folder_that_exists_is_kept(exact, source):
    with pytest.raises(UserError, match="exists already"):
        lerobot_writer.write(exact, source)


KILLED = """
import sys, time
from tests_writer import Listed, episode
from noisepilot.datasets import lerobot_writer
lerobot_writer.write(sys.argv[1], Listed([episode(20, i) for i in range(500)]), progress=lambda n: print(n, flush=True))
"""


def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path):
    import noisepilot

    above = Path(noisepilot.__file__).resolve().parent.parent
    (tmp_path / "tests_writer.py").write_text(Path(__file__).read_text())
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(above)])}
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "set")], env=env, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "1\n"
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not (tmp_path / "set").exists()
