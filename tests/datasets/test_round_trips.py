"""Every format into our zarr, and from there to LeRobot and back: states and actions to the bit."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import zarr

from noisepilot.datasets.readers import load

from . import lerobot_files
from .trips import there_and_back

ENDS = np.array([4, 6, 11])


def arrays():
    rng = np.random.default_rng(0)
    numbers = {"action": rng.normal(size=(11, 2)).astype(np.float32), "state": rng.normal(size=(11, 3))}
    return {**numbers, "img": rng.integers(0, 255, (11, 16, 16, 3), np.uint8)}


def plain(folder):
    np.savez(folder / "set.npz", **arrays(), episode_ends=ENDS)
    return folder / "set.npz"


def dppo(folder):
    found = arrays()
    renamed = {"states": found["state"], "actions": found["action"], "images": found["img"]}
    np.savez(folder / "set.npz", **renamed, rewards=np.arange(11.0), traj_lengths=np.diff(ENDS, prepend=0))
    return folder / "set.npz"


def d4rl(folder):
    found, timeouts = arrays(), np.zeros(11, bool)
    timeouts[ENDS - 1] = True
    with h5py.File(folder / "set.hdf5", "w") as file:
        file["observations"], file["actions"], file["timeouts"] = found["state"], found["action"], timeouts
        file["rewards"], file["terminals"] = np.arange(11.0), np.zeros(11, bool)
        file["next_observations"] = np.roll(found["state"], -1, 0)
    return folder / "set.hdf5"


def robomimic(folder):
    with h5py.File(folder / "set.hdf5", "w") as file:
        for i, rows in enumerate(np.split(np.arange(11), ENDS[:-1])):
            for theirs, key in (("actions", "action"), ("obs/state", "state"), ("obs/front_image", "img")):
                file[f"data/demo_{i}/{theirs}"] = arrays()[key][rows]
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift"})
    return folder / "set.hdf5"


def robosuite(folder):
    with h5py.File(folder / "set.hdf5", "w") as file:
        for i, rows in enumerate(np.split(np.arange(11), ENDS[:-1])):
            file[f"data/demo_{i + 1}/actions"] = arrays()["action"][rows]
            file[f"data/demo_{i + 1}/states"] = arrays()["state"][rows]
        file["data"].attrs["env"] = "SawyerLift"
    return folder / "set.hdf5"


def diffusion_policy(folder):
    group = zarr.open_group(folder / "set.zarr", mode="w", zarr_format=2)
    for name, value in {**{f"data/{key}": value for key, value in arrays().items()}, "meta/episode_ends": ENDS}.items():
        group.create_array(name, shape=value.shape, dtype=value.dtype, chunks=(4, *value.shape[1:]))[:] = value
    return folder / "set.zarr"


def zipped(folder):
    written = diffusion_policy(folder)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for file in (file for file in written.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(written))
    return folder / "set.zip"


@pytest.mark.parametrize("write", [plain, dppo, d4rl, robomimic, robosuite, diffusion_policy, zipped])
def test_numbers_come_back(write, tmp_path):
    episodes, found = there_and_back(write(tmp_path), tmp_path), arrays()
    assert episodes.ends.tolist() == ENDS.tolist()
    np.testing.assert_array_equal(episodes.data["action"], found["action"])
    state = next(key for key in episodes.obs_keys if key.endswith("state"))
    np.testing.assert_array_equal(episodes.data[state], found["state"])


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_lerobot_comes_back(version, tmp_path):
    sets = lerobot_files.episodes()
    if version == "v3.0":
        root = lerobot_files.write_v3(tmp_path / "set", sets)
    else:
        root = lerobot_files.write_v2(tmp_path / "set", sets, version=version)
    episodes = there_and_back(root, tmp_path)
    for key in ("action", "observation.state", *lerobot_files.CAMERAS):
        np.testing.assert_array_equal(episodes.data[key], np.concatenate([one[key] for one in sets]))


@pytest.mark.parametrize(
    "name",
    ["adroit_door_human25.npz", "robosuite_lift_panda_human3.hdf5", "robosuite_v1.0_stack_panda_human1.hdf5"],
)
def test_real_sets_come_back(shared_data, tmp_path, name):
    path = shared_data / "demos" / name
    assert there_and_back(path, tmp_path).hash() == load(path).hash()
