"""LeRobot folders of both layouts, read back to what was written into them, or refused in one line."""

import json
import shutil

import numpy as np
import pytest

from noisepilot.datasets import lerobot
from noisepilot.datasets.readers import load
from noisepilot.datasets.source import collect
from noisepilot.errors import UserError

from . import lerobot_files as files

pytest.importorskip("pyarrow", reason="pip install 'noisepilot[lerobot]'")
pytest.importorskip("av", reason="pip install 'noisepilot[lerobot]'")

WRITERS = {"v2.1": files.write_v2, "v3.0": files.write_v3}


@pytest.fixture(scope="module")
def sets():
    return files.episodes()


@pytest.fixture(scope="module")
def written(sets, tmp_path_factory):
    return {version: write(tmp_path_factory.mktemp(version), sets) for version, write in WRITERS.items()}


@pytest.fixture(params=WRITERS)
def root(request, written, tmp_path):
    """A folder of its own to damage."""
    return shutil.copytree(written[request.param], tmp_path / "set")


def change_info(root, **changes):
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del info[key]
        else:
            info[key] = value
    path.write_text(json.dumps(info))


def change_column(path, key, change):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = {name: table.column(name) for name in table.column_names}
    columns[key] = change(columns[key])
    pq.write_table(pa.table({key: value for key, value in columns.items() if value is not None}), path)


def first_table(root):
    return sorted(root.glob("data/*/*.parquet"))[0]


def last_video(root):
    return sorted(root.glob("videos/**/*.mp4"))[-1]


def require_equal(recorded, sets):
    assert len(recorded) == len(sets)
    for ours, theirs in zip(recorded, sets, strict=True):
        assert set(ours.data) == {*theirs, "task_index"}
        for key, value in theirs.items():
            assert ours.data[key].dtype == value.dtype, key
            np.testing.assert_array_equal(ours.data[key], value, err_msg=key)
        np.testing.assert_array_equal(ours.data["task_index"], files.task_index(len(theirs["action"])))
        assert not ours.final


@pytest.mark.parametrize("version", WRITERS)
def test_every_value_and_pixel_comes_back(written, sets, version):
    assert lerobot.recognises(written[version])
    source = lerobot.open_source(written[version])
    assert len(source) == len(sets)
    require_equal(list(source.episodes()), sets)
    assert collect(source).num_steps == sum(files.LENGTHS)


@pytest.mark.parametrize("version", WRITERS)
def test_pictures_in_the_table_come_back(sets, tmp_path, version):
    root = WRITERS[version](tmp_path, sets, pictures="image")
    require_equal(list(lerobot.open_source(root).episodes()), sets)


def test_reading_may_start_anywhere(written, sets):
    for root in written.values():
        source = lerobot.open_source(root)
        for start in range(len(sets) + 1):
            require_equal(list(source.episodes(start)), sets[start:])


def test_a_video_may_start_before_its_first_episode(sets, tmp_path):
    root = files.write_v3(tmp_path, sets, per_file=3, lead=7)
    require_equal(list(lerobot.open_source(root).episodes()), sets)


def test_version_2_0_has_the_same_files(sets, tmp_path):
    require_equal(list(lerobot.open_source(files.write_v2(tmp_path, sets, version="v2.0")).episodes()), sets)


@pytest.mark.parametrize("encoder", ["libx264", "libsvtav1"])
def test_lossy_videos_are_close(sets, tmp_path, encoder):
    """LeRobot's own codecs, on a picture that moves; the frame of the step is the nearest one by far."""
    rows, columns = np.mgrid[:64, :96]
    for episode in (smooth := [dict(episode) for episode in sets]):
        steps = np.arange(len(episode["action"]))[:, None, None]
        planes = (2 * columns + 8 * steps, 3 * rows + 4 * steps, rows + columns + 9 * steps)
        frames = np.stack([127.5 * (1 + np.sin(plane / 40)) for plane in planes], -1).astype(np.uint8)
        episode |= dict.fromkeys(files.CAMERAS, frames)
    for ours, theirs in zip(
        lerobot.open_source(files.write_v3(tmp_path, smooth, encoder=encoder)).episodes(), smooth, strict=True
    ):
        off = np.abs(ours.data[files.CAMERAS[0]].astype(int) - theirs[files.CAMERAS[0]])
        assert off.mean() < 3
        assert off.max() < 32


def test_attributes_are_the_folders(written):
    for root in written.values():
        attrs = lerobot.open_source(root).attrs
        assert attrs["fps"] == files.FPS
        assert attrs["tasks"] == list(files.TASKS)
        assert attrs["robot"] == "so100"
        assert attrs["left_out"] == ["next.done", "observation.note"]
        episodes = collect(lerobot.open_source(root))
        assert episodes.action_spec().names == ("x", "y")
        assert episodes.obs_specs()["state"].names == ("a", "b", "c")
        assert episodes.obs_specs()["images.front"].shape == (24, 32, 3)


def test_one_task_needs_no_column(sets, tmp_path):
    root = files.write_v2(tmp_path, sets)
    files.lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "push"}])
    source = lerobot.open_source(root)
    assert source.attrs["tasks"] == ["push"]
    assert "task_index" not in next(source.episodes()).data


def test_channels_may_be_declared_first(root):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[files.CAMERAS[0]]["shape"] = [3, 24, 32]
    change_info(root, features=features)
    assert next(lerobot.open_source(root).episodes()).data[files.CAMERAS[0]].shape == (12, 24, 32, 3)


def test_a_wider_type_is_cast(root):
    change_column(first_table(root), "next.reward", lambda column: column.cast("double"))
    assert next(lerobot.open_source(root).episodes()).data["next.reward"].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": None}, "no 'codebase_version'"),
        ({"fps": None}, "no 'fps'"),
        ({"features": None}, "no 'features'"),
        ({"data_path": None}, "no 'data_path'"),
        ({"video_path": None}, "no 'video_path'"),
        ({"codebase_version": "v1.6"}, "version v1.6"),
        ({"codebase_version": "v4.0"}, "version v4.0"),
        ({"fps": 0}, "fps 0"),
        ({"features": {"observation.state": {"dtype": "float32", "shape": [3]}}}, "no feature 'action'"),
        ({"data_path": "../../etc/passwd"}, "outside the dataset"),
        ({"data_path": "/etc/passwd"}, "outside the dataset"),
        ({"video_path": "{video_key}/../../../x.mp4"}, "outside the dataset"),
        ({"data_path": "data/{secret}.parquet"}, "unknown field 'secret'"),
        ({"data_path": "data/{episode_index.__class__}.parquet"}, "no path template"),
        ({"data_path": "data/{chunk_index:0999999999d}.parquet"}, "no path template"),
        ({"data_path": "data/nowhere.parquet"}, "nowhere.parquet is missing"),
    ],
)
def test_wrong_info_is_refused(root, changes, message):
    change_info(root, **changes)
    with pytest.raises(UserError, match=message) as refused:
        list(lerobot.open_source(root).episodes())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        ("action", {"dtype": "float32", "shape": [3]}, r"shape \(2,\) but declared \(3,\)"),
        ("action", {"dtype": "int64", "shape": [2]}, "float32 but declared int64"),
        ("action", {"dtype": "nonsense", "shape": [2]}, "dtype 'nonsense'"),
        ("action", {"dtype": "float32", "shape": "2"}, "shape 2"),
        ("observation.more", {"dtype": "float32", "shape": [2]}, "no column 'observation.more'"),
        (files.CAMERAS[0], {"dtype": "video", "shape": [48, 64, 3]}, r"\(24, 32\) pixels but \(48, 64\)"),
        (files.CAMERAS[0], {"dtype": "video", "shape": [48, 64]}, "height, width and 3 channels"),
        (files.CAMERAS[0] + "2", {"dtype": "video", "shape": [24, 32, 3]}, "front2"),
    ],
)
def test_features_that_are_not_so_are_refused(root, key, entry, message):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    change_info(root, features={**features, key: entry})
    with pytest.raises(UserError, match=message) as refused:
        list(lerobot.open_source(root).episodes())
    assert "\n" not in str(refused.value)


def _texts(column):
    import pyarrow as pa

    return pa.array(["one"] * len(column))


def _ragged(column):
    import pyarrow as pa

    return pa.array([[0.0, 1.0]] * (len(column) - 1) + [[0.0]], pa.list_(pa.float32()))


def _gap(column):
    import pyarrow as pa

    return pa.array([*column.to_pylist()[:-1], None], column.type)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("action", _texts, "is string: expected numbers"),
        ("action", _ragged, "rows of unequal length"),
        ("action", _gap, "rows without a value"),
        ("next.reward", _gap, "rows without a value"),
        ("action", lambda column: None, "no column 'action'"),
        ("timestamp", lambda column: None, "no column 'timestamp'"),
        ("episode_index", lambda column: None, "no column 'episode_index'"),
    ],
)
def test_damaged_columns_are_refused(root, key, change, message):
    change_column(first_table(root), key, change)
    with pytest.raises(UserError, match=message):
        list(lerobot.open_source(root).episodes())


def test_times_that_run_backwards_are_refused(root):
    def swapped(column):
        times = np.array(column, np.float32).copy()
        times[[2, 3]] = times[[3, 2]]
        return times

    change_column(first_table(root), "timestamp", swapped)
    with pytest.raises(UserError, match="episode 0 has times that do not increase at 1 rows, first in row 3: sort or"):
        list(lerobot.open_source(root).episodes())


@pytest.mark.parametrize("time", [np.nan, np.inf, 1e30])
def test_times_that_no_video_has_are_refused(root, time):
    change_column(first_table(root), "timestamp", lambda column: np.full(len(column), time, np.float32))
    with pytest.raises(UserError, match="has times that are no seconds of a recording"):
        list(lerobot.open_source(root).episodes())


def test_a_false_rate_is_refused(root):
    change_info(root, fps=12)
    with pytest.raises(UserError, match=r"episode 0 has rows 0\.1 s apart, but meta/info.json claims fps 12: correct"):
        list(lerobot.open_source(root).episodes())


def test_specs_that_are_none_are_refused(root):
    for specs in (3, {"action": {"x": 1}}):
        (root / "meta/noisepilot.json").write_text(json.dumps({"specs": specs}))
        with pytest.raises(UserError, match="'specs' is damaged"):
            load(root)


def test_missing_or_damaged_files_are_refused(root):
    for path in (first_table(root), last_video(root), root / "meta/info.json"):
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=f"{path.name} is missing"):
            list(lerobot.open_source(root).episodes())
        path.write_bytes(kept[: len(kept) // 2])
        with pytest.raises(UserError, match="damaged") as refused:
            list(lerobot.open_source(root).episodes())
        assert "\n" not in str(refused.value)
        path.write_bytes(kept)


def test_a_video_shorter_than_its_table_is_refused(root, sets):
    files.mp4(last_video(root), sets[-1][files.CAMERAS[1]][:-1])
    with pytest.raises(UserError, match=r"shorter than its table: it ends at 0\.700 s, but a frame at 0\.800 s"):
        list(lerobot.open_source(root).episodes())


def test_a_video_is_never_read_as_something_that_names_other_files(root):
    last_video(root).write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match="not a readable mp4"):
        list(lerobot.open_source(root).episodes())


def test_rows_must_be_as_many_as_the_metadata_says(written, sets, tmp_path):
    root = shutil.copytree(written["v2.1"], tmp_path / "set")
    rows = [{"episode_index": i, "length": len(e["action"]) + (i == 1)} for i, e in enumerate(sets)]
    files.lines(root / "meta/episodes.jsonl", rows)
    with pytest.raises(UserError, match="episode 1 has 5 rows but 6"):
        list(lerobot.open_source(root).episodes())
    root = shutil.copytree(written["v3.0"], tmp_path / "other")
    change_column(root / "meta/episodes/chunk-000/file-000.parquet", "length", _longer)
    with pytest.raises(UserError, match="episode 0 has 12 rows but 13"):
        list(lerobot.open_source(root).episodes())


def _longer(column):
    import pyarrow.compute as pc

    return pc.add(column, 1)


def test_a_shared_video_is_decoded_once(sets, tmp_path, monkeypatch):
    """Reading a file of many episodes never goes back to its start."""
    from noisepilot.datasets.video import VideoReader

    root, sought = files.write_v3(tmp_path, sets, per_file=3), []
    seek = VideoReader._seek
    monkeypatch.setattr(VideoReader, "_seek", lambda self, time: (sought.append(time), seek(self, time))[1])
    require_equal(list(lerobot.open_source(root).episodes()), sets)
    assert sought == [0.0, 0.0]  # where each camera's reader begins
