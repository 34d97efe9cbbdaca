import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

import noisepilot
from noisepilot.datasets import convert as converting
from noisepilot.datasets.convert import convert, verify
from noisepilot.datasets.lerobot_writer import write as lerobot
from noisepilot.datasets.readers import load, open_source
from noisepilot.datasets.writer import EpisodeWriter
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data
from noisepilot.spec import ArraySpec, Convention


@pytest.fixture
def demos(tmp_path):
    def write(name="demo.hdf5", count=6, steps=5, side=4, controller=None, bad=None):
        rng = np.random.default_rng(0)
        with h5py.File(tmp_path / name, "w") as file:
            group = file.create_group("data")
            for i in range(count):
                shape = (steps, side, side, 3)
                group.create_dataset(f"demo_{i}/obs/front_image", data=rng.integers(0, 255, shape, np.uint8))
                action = rng.normal(size=(steps, 7))
                action[0, 0] = np.nan if i == bad else 0.0
                group[f"demo_{i}/actions"] = action
            group.attrs["env_args"] = controller or "{}"
        return tmp_path / name

    return write


def test_the_checksum_is_the_hash_of_what_is_read_back(demos, tmp_path, capsys):
    path, target = demos(), tmp_path / "set"
    assert data(["convert", str(path), str(target)]) == 0
    out = capsys.readouterr().out
    assert "set: 6 episodes, 30 steps, action, next.terminated, next.truncated, observation.images.front" in out
    assert f"sha256 {load(path).hash()}" in out
    assert load(target).hash() == load(path).hash()
    assert verify(target) is True
    assert verify(path.parent) is None
    chunk = target / "data/action/c/0/0"
    chunk.write_bytes(b"\x01" + chunk.read_bytes()[1:])
    assert verify(target) is False
    assert data(["check", str(target)]) == 1
    assert "not what was written" in capsys.readouterr().out


def test_what_is_left_out_is_said(tmp_path, capsys):
    path = tmp_path / "set.npz"
    np.savez(path, action=np.zeros((3, 1)), x=np.zeros((3, 1)), short=np.zeros((2, 1)), episode_ends=[3])
    assert data(["convert", str(path), str(tmp_path / "set")]) == 0
    assert "left out: observation.short" in capsys.readouterr().out
    assert data(["info", str(tmp_path / "set")]) == 0
    assert "observation.short" in capsys.readouterr().out


class Killed(BaseException):
    pass


class Dying:
    """A source whose process dies before an episode."""

    def __init__(self, source, before):
        self.source, self.before, self.asked = source, before, []
        self.attrs = source.attrs

    def __len__(self):
        return len(self.source)

    def episodes(self, start=0):
        for i, episode in enumerate(self.source.episodes(start), start):
            if i == self.before:
                raise Killed
            self.asked.append(i)
            yield episode


def test_a_killed_conversion_goes_on_at_the_next_episode(demos, tmp_path):
    path, target = demos(), tmp_path / "set"
    with pytest.raises(Killed):
        convert(Dying(open_source(path), before=4), path, target)
    with pytest.raises(UserError, match="conversion that was not finished: repeat the same"):
        load(target)
    rest = Dying(open_source(path), before=99)
    assert convert(rest, path, target) == load(path).hash() == load(target).hash()
    assert rest.asked == [3, 4, 5]  # the last one written is compared
    assert "unfinished" not in load(target).attrs
    with pytest.raises(UserError, match="set exists already"):
        convert(open_source(path), path, target)


def test_short_episodes_are_committed_together(demos, tmp_path, monkeypatch):
    path, target = demos(count=30), tmp_path / "set"
    batches, extend = [], EpisodeWriter.extend
    monkeypatch.setattr(EpisodeWriter, "extend", lambda self, e: (batches.append(len(e)), extend(self, e)))
    monkeypatch.setattr(converting, "BLOCK_BYTES", 10 * sum(v.nbytes for v in load(path).episode(0).values()))
    seen = []
    assert convert(open_source(path), path, target, seen.append) == load(path).hash() == load(target).hash()
    assert (batches, seen) == ([10, 10, 10], [10, 20, 30])


def test_a_process_killed_at_any_moment_loses_nothing(demos, tmp_path):
    path, target = demos(count=40, steps=40, side=128), tmp_path / "set"  # some episodes are more than is gathered
    root = Path(noisepilot.__file__).parent
    command = [sys.executable, "-m", "noisepilot", "data", "convert", str(path), str(target)]
    env = os.environ | {"PYTHONPATH": str(root.parent)}
    done = []
    for _ in range(3):
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        wanted = (done[-1] if done else 0) + 3
        while process.poll() is None and committed(target) < wanted:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append(committed(target))
    assert 0 < done[0] < done[1] < done[2]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert load(target).hash() == load(path).hash()


def committed(target):
    import json

    try:
        return json.loads((target / "meta/episode_ends/zarr.json").read_text())["shape"][0]
    except FileNotFoundError:
        return 0


def test_another_source_does_not_continue_a_conversion(demos, tmp_path):
    path, other, target = demos(), demos("other.hdf5", steps=6), tmp_path / "set"
    with pytest.raises(Killed):
        convert(Dying(open_source(path), before=4), path, target)
    shutil.copy(other, path)
    with pytest.raises(UserError, match="was begun from another source"):
        convert(open_source(path), path, target)
    assert target.exists()


@pytest.mark.parametrize("target_exists", [False, True])
def test_an_unsound_source_leaves_nothing(demos, tmp_path, target_exists):
    path = demos(bad=4)
    if target_exists:
        (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"demo.hdf5: episode 4: 'action' holds a NaN .*first in row 0"):
        convert(open_source(path), path, tmp_path / "set")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.hdf5"]


def test_faults_of_an_episode_name_file_and_episode(tmp_path):
    path, target, ends = tmp_path / "bad.npz", tmp_path / "set", {"episode_ends": [2, 3]}
    for arrays, message in (
        ({"action": np.zeros(3), "x": np.zeros((3, 1)), **ends}, r"episode 0: 'action' has shape \(2,\)"),
        ({"action": np.zeros((3, 1)), **ends}, r"episode 0: a dataset needs an 'observation"),
        ({"action": np.zeros((3, 1)), "x": np.zeros((3, 1)), "episode_ends": [3, 3]}, "episode 1 has no steps"),
        ({"action": np.zeros((3, 1)), "x": np.zeros((3, 1), complex), **ends}, "episode 0: .* has type complex128"),
    ):
        np.savez(path, **arrays)
        source = open_source(path)
        for write in (partial(convert, source, path, target), partial(lerobot, target, source, fps=1.0)):
            with pytest.raises(UserError, match=rf"bad.npz: {message}"):
                write()
            assert list(tmp_path.iterdir()) == [path]


def test_rotations_are_converted_on_request(demos, tmp_path):
    path, target = demos(), tmp_path / "set"
    arguments = ["convert", str(path), str(target), "--rotation", "6d"]
    with pytest.raises(UserError, match="does not say how its actions rotate"):
        data(arguments)
    pose = '{"mode": "absolute", "rotation": "axis_angle", "rotation_at": [3], "gripper": "closes", "gripper_at": [6]}'
    assert data([*arguments, "--action", pose]) == 0
    before, after = load(path), load(target)
    assert after.action_spec() == ArraySpec((10,), convention=Convention("absolute", "", "6d", (3,), "closes", (9,)))
    np.testing.assert_array_equal(after.data["action"][:, :3], before.data["action"][:, :3])
    np.testing.assert_array_equal(after.data["action"][:, 9], before.data["action"][:, 6])
    back = ["convert", str(target), str(tmp_path / "back"), "--rotation", "axis_angle"]
    assert data(back) == 0
    angle = np.linalg.norm(before.data["action"][:, 3:6], axis=1)
    near = angle < np.pi  # beyond, the same rotation has a shorter axis-angle
    np.testing.assert_allclose(load(tmp_path / "back").data["action"][near], before.data["action"][near], atol=1e-6)
    with pytest.raises(UserError, match="says otherwise about its actions: mode absolute != delta as given"):
        data(["convert", str(target), str(tmp_path / "x"), "--action", '{"mode": "delta"}'])


def test_rotations_scaled_by_a_controller_stay(demos, tmp_path):
    controller = '{"env_kwargs": {"controller_configs": {"type": "OSC_POSE"}}}'
    with pytest.raises(UserError, match="scaled by a controller, not angles"):
        data(["convert", str(demos(controller=controller)), str(tmp_path / "set"), "--rotation", "6d"])


MEASURE = """
import resource, sys
from noisepilot.__main__ import main
try:
    main(["data", "convert", *sys.argv[1:]])
except SystemExit as stop:
    assert not stop.code
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_set(demos, tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path(noisepilot.__file__).parent.parent)}
    peaks = []
    for count in (2, 200):
        path = demos(f"{count}.hdf5", count=count, steps=20, side=128)
        command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / f"set{count}")]
        out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
        peaks.append(int(out.split("peak ")[1]))
    assert peaks[1] - peaks[0] < path.stat().st_size / 10
