import json
import sys
import zipfile

import h5py
import numpy as np
import pytest

from noisepilot.datasets.convert import convert
from noisepilot.datasets.readers import load, open_source
from noisepilot.errors import UserError

from .sets import make


@pytest.fixture
def d4rl(tmp_path):
    def write(name="set.hdf5", attrs=(), **changes):
        steps = 6
        arrays = {
            "observations": np.arange(12.0).reshape(steps, 2).astype(np.float32),
            "next_observations": np.arange(12.0).reshape(steps, 2).astype(np.float32) + 2,
            "actions": np.zeros((steps, 1), np.float32),
            "rewards": np.ones(steps, np.float32),
            "terminals": np.array([0, 1, 0, 0, 0, 0], bool),
            "timeouts": np.array([0, 0, 0, 1, 0, 0], bool),
        }
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in (arrays | changes).items():
                if value is not None:
                    file[key] = value
            for key, value in dict(attrs).items():
                file.attrs[key] = value
        return tmp_path / name

    return write


def test_d4rl_ends_at_terminals_timeouts_and_the_end(d4rl):
    episodes = load(d4rl(attrs={"env": "Hopper-v5", "seed": np.int64(3), "note": b"x"}))
    assert episodes.ends.tolist() == [2, 4, 6]
    assert episodes.data["next.terminated"].tolist() == [False, True, False, False, False, False]
    assert episodes.data["next.truncated"].tolist() == [False, False, False, True, False, True]
    assert episodes.final["observation.state"].tolist() == [[4, 5], [8, 9], [12, 13]]
    assert episodes.attrs["env"] == "Hopper-v5"
    assert json.loads(json.dumps(episodes.attrs))["file"] == {"env": "Hopper-v5", "seed": 3, "note": "x"}


def test_d4rl_without_timeouts_ends_where_observations_jump(d4rl):
    following = np.arange(12.0).reshape(6, 2).astype(np.float32) + 2
    following[3] = -1
    assert load(d4rl(timeouts=None, next_observations=following)).ends.tolist() == [2, 4, 6]
    assert load(d4rl(timeouts=None, next_observations=None)).ends.tolist() == [2, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": None}, r"no 'observations': it is not in D4RL's layout"),
        ({"terminals": None, "timeouts": None}, r"neither 'terminals' nor 'timeouts'"),
        ({"rewards": np.ones(5)}, r"'rewards' has 5 rows but 'actions' has 6"),
        ({"actions": np.full((6, 1), np.nan)}, r"'action' holds a NaN .*row 0.*noisepilot data check"),
    ],
)
def test_d4rl_faults_are_named(d4rl, changes, message):
    with pytest.raises(UserError, match=message) as error:
        load(d4rl(**changes))
    assert "set.hdf5" in str(error.value)
    assert "\n" not in str(error.value)


def test_d4rl_needs_h5py(d4rl, monkeypatch):
    path = d4rl()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"needs h5py: pip install 'noisepilot\[hdf5\]'"):
        load(path)


def test_cut_off_hdf5_is_named(d4rl):
    path = d4rl()
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"set.hdf5 is not a readable HDF5 file"):
        load(path)


def test_dppo_archive(tmp_path):
    np.savez(
        tmp_path / "train.npz",
        states=np.zeros((5, 3), np.float32),
        actions=np.ones((5, 2), np.float32),
        rewards=np.arange(5.0),
        terminals=np.array([0, 0, 1, 0, 0]),
        traj_lengths=np.array([3, 2]),
    )
    episodes = load(tmp_path / "train.npz")
    assert episodes.ends.tolist() == [3, 5]
    assert sorted(episodes.data) == ["action", "next.reward", "next.terminated", "observation.state"]
    assert episodes.returns().tolist() == [3, 7]


@pytest.mark.parametrize("names", [("observations/state", "actions/action"), ("state", "action")])
def test_plain_archive(tmp_path, names):
    arrays = {names[0]: np.zeros((5, 3)), names[1]: np.ones((5, 2)), "keypoint": np.zeros((5, 9, 2))}
    np.savez(tmp_path / "set.npz", **arrays, episode_ends=np.array([5]), init=np.zeros((1, 4)))
    episodes = load(tmp_path / "set.npz")
    assert episodes.obs_specs().keys() == {"state", "keypoint"}
    assert episodes.attrs["left_out"] == ["observation.init"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w0": np.zeros(3)}, r"neither 'episode_ends' nor 'traj_lengths'.*it has w0"),
        ({"states": np.zeros((3, 1)), "traj_lengths": [3]}, r"no 'action' or 'actions'"),
        (
            {"actions": np.zeros((3, 1)), "traj_lengths": [4]},
            r"'actions' has 3 rows but the episodes sum up to 4",
        ),
        (
            {"actions": np.zeros((3, 1)), "states": np.zeros((2, 1)), "traj_lengths": [3]},
            r"'observation.state' has \(2, 1\) but must have 3 rows",
        ),
        (
            {"actions": np.zeros((3, 1)), "states": np.zeros((3, 1)), "traj_lengths": [3, 0]},
            r"episode 1 has no steps",
        ),
        ({"actions": np.array([None]), "traj_lengths": [1]}, r"not a readable .npz of plain arrays"),
        (
            {"action": np.zeros((3, 1)), "x": np.zeros((3, 1)), "episode_ends": [4, 2, 3]},
            r"'episode_ends' must not be negative or decrease",
        ),
        ({"action": np.zeros((3, 1)), "x": np.zeros((3, 1)), "episode_ends": [1.5, 3]}, r"must hold whole numbers"),
        ({"action": np.zeros((3, 1)), "x": np.zeros((3, 1)), "traj_lengths": [np.nan, 3]}, r"must hold whole numbers"),
        (
            {"action": np.zeros((3, 1)), "obs": np.zeros((3, 1)), "states": np.zeros((3, 1)), "traj_lengths": [3]},
            r"'obs' and 'states' would both become 'observation.state'",
        ),
        (
            {"action": np.zeros((3, 1)), "x": np.zeros((3, 1), "g"), "traj_lengths": [3]},
            r"'observation.x' has type float128",
        ),
    ],
)
def test_archive_faults_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value)


def test_an_archive_with_other_things_in_it_names_them(tmp_path):
    np.savez(tmp_path / "set.npz", action=np.zeros((3, 1)), x=np.zeros((3, 1)), episode_ends=[3])
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as archive:
        archive.writestr("README.txt", "hello")
    with pytest.raises(UserError, match=r"'README.txt' is no array: leave it out"):
        load(tmp_path / "set.npz")


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_of_either_byte_order(tmp_path, d4rl, order):
    state = np.arange(12.0).reshape(6, 2).astype(f"{order}f4")
    np.savez(tmp_path / "set.npz", action=np.zeros((6, 1), f"{order}i2"), state=state, episode_ends=[2, 6])
    for path in (tmp_path / "set.npz", d4rl("d4rl.hdf5", observations=state)):
        episodes = load(path)
        assert episodes.data["observation.state"].dtype.isnative
        np.testing.assert_array_equal(episodes.data["observation.state"], state)
        assert convert(open_source(path), path, tmp_path / f"{path.stem}.zarr") == episodes.hash()


def test_paths_that_are_no_dataset(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "missing.npz": "no dataset at .*missing.npz: check the path",
        "note.txt": "note.txt is not a dataset of a known format: a zarr folder",
        "cut.npz": "cut.npz is not a readable archive",
        "folder": "folder is a folder but not a dataset of a known format: a zarr folder",
    }.items():
        with pytest.raises(UserError, match=message):
            load(tmp_path / name)


def test_lost_newer_and_damaged_zarr_are_named(tmp_path):
    path = tmp_path / "set"
    make().write(path)
    meta, chunk = path / "zarr.json", path / "data/action/c/0/0"
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(UserError, match=r"set cannot be read as a dataset: "):
        load(path)
    chunk.unlink()
    with pytest.raises(UserError, match=r"set is damaged: data/action/c/0/0 is missing; restore it"):
        load(path)
    chunk.write_bytes(kept)
    meta.write_text(meta.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(UserError, match=r"newer noisepilot \(schema 2 > 1\): upgrade"):
        load(path)
    meta.write_text("{")
    with pytest.raises(UserError, match=r"set cannot be read as a dataset: "):
        load(path)


def test_foreign_zarr_is_named(tmp_path):
    import zarr

    zarr.open_group(tmp_path / "other", mode="w")
    with pytest.raises(UserError, match="not a dataset of noisepilot: its attributes name no schema"):
        load(tmp_path / "other")


def test_convert_keeps_everything(d4rl, tmp_path):
    episodes = load(d4rl(attrs={"env": "Hopper-v5"}))
    episodes.write(tmp_path / "set")
    assert load(tmp_path / "set").hash() == episodes.hash() == load(tmp_path / "set.hdf5").hash()


def test_real_d4rl_style_set(shared_data, tmp_path):
    path = shared_data / "demos/d4rl_style/hopper-medium-regen.hdf5"
    episodes = load(path)
    assert (len(episodes), episodes.num_steps) == (458, 200_197)
    assert episodes.returns().mean() == pytest.approx(episodes.attrs["file"]["mean_return"])
    assert episodes.data["next.terminated"].sum() == 408
    inside = np.setdiff1d(np.arange(episodes.num_steps), episodes.ends - 1)
    with h5py.File(path) as file:
        following = np.asarray(file["next_observations"])
    np.testing.assert_array_equal(episodes.next_obs("state")[inside], following[inside])


def test_real_archives(shared_data):
    pusht = load(shared_data / "demos/pusht_v7_human_lowdim.npz")
    assert (len(pusht), pusht.num_steps) == (206, 25_650)
    assert pusht.obs_specs()["keypoint"].shape == (9, 2)
    door = load(shared_data / "demos/adroit_door_human25.npz")
    assert (len(door), door.action_spec().shape) == (25, (28,))
