import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import zarr

from noisepilot.datasets import zarr_layout as layout
from noisepilot.datasets.readers import load
from noisepilot.datasets.writer import EpisodeWriter
from noisepilot.errors import UserError

from .sets import final_of, make

ATTRS = {"env": "Toy-v0", "fps": 10.0, "low": [-1.0, float("-inf")]}


def append(path, episodes, indices, attrs=ATTRS):
    with EpisodeWriter(path, attrs) as writer:
        for index in indices:
            writer.append(episodes.episode(index), final_of(episodes, index))


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few rows, so that episodes cross their borders."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 48)


def test_appended_in_pieces_equals_the_whole(tmp_path, small_chunks):
    episodes = make((5, 1, 7, 4, 9))
    for piece in ([0, 1], [2], [], [3, 4]):
        append(tmp_path / "set", episodes, piece)
    again = load(tmp_path / "set")
    assert again.hash() == episodes.hash()
    assert again.attrs == {**ATTRS, "schema": 1}
    assert zarr.open_array(tmp_path / "set/data/action", mode="r").shape == (26, 2)


class Crash(BaseException):
    """Stands for a kill: nothing after it runs."""


def append_and_die(path, episodes, index, survived, monkeypatch):
    """Append one episode in a process that dies when it flushes for the `survived` + 1st time."""
    flushes, flush = iter(range(survived)), os.fsync

    def dying(handle):
        if next(flushes, None) is None:
            raise Crash
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying)
        with contextlib.suppress(Crash):
            append(path, episodes, [index])


@pytest.mark.parametrize("survived", range(0, 24, 2))
def test_killed_after_any_flush_leaves_whole_episodes(tmp_path, monkeypatch, small_chunks, survived):
    episodes = make((5, 3, 4))
    append(tmp_path / "set", episodes, [0])
    append_and_die(tmp_path / "set", episodes, 1, survived, monkeypatch)
    left = load(tmp_path / "set")
    assert left.hash() == episodes.select(range(len(left))).hash()
    append(tmp_path / "set", episodes, range(len(left), 3))
    assert load(tmp_path / "set").hash() == episodes.hash()


@pytest.mark.parametrize("survived", [0, 10, 40, 55])
def test_killed_during_the_first_episode(tmp_path, monkeypatch, survived):
    episodes = make((5, 3))
    append_and_die(tmp_path / "set", episodes, 0, survived, monkeypatch)
    with EpisodeWriter(tmp_path / "set", ATTRS) as writer:
        begun = len(writer)
    if begun == 0:
        with pytest.raises(UserError, match=r"no dataset at|at least one episode"):
            load(tmp_path / "set")
    append(tmp_path / "set", episodes, range(begun, 2))
    assert load(tmp_path / "set").hash() == episodes.hash()


CHILD = """
import sys
import numpy as np
from noisepilot.datasets import zarr_layout
from noisepilot.datasets.writer import EpisodeWriter
zarr_layout.CHUNK_BYTES = 4096
with EpisodeWriter(sys.argv[1], {"env": "x"}) as writer:
    while len(writer) < 100:
        rng = np.random.default_rng(len(writer))
        state = rng.normal(size=(rng.integers(1, 60), 3))
        writer.append({"observation.state": state, "action": state[:, :2]}, {"observation.state": state[-1]})
        print(len(writer), flush=True)
"""


def write_until(path, episodes, later=0.0):
    """Let a process append; kill it `later` seconds after it said that it has so many episodes."""
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == episodes:
                time.sleep(later)
                child.send_signal(signal.SIGKILL)
                break


def test_sigkill_in_the_middle_and_continued(tmp_path):
    for episodes, later in ((20, 0.0), (40, 0.001), (60, 0.0025)):
        write_until(tmp_path / "killed", episodes, later)
        assert episodes <= len(load(tmp_path / "killed")) < 100
    write_until(tmp_path / "killed", None)
    write_until(tmp_path / "whole", None)
    killed = load(tmp_path / "killed")
    assert len(killed) == 100
    assert killed.hash() == load(tmp_path / "whole").hash()


def test_a_second_writer_has_to_wait(tmp_path):
    episodes = make()
    with EpisodeWriter(tmp_path / "set", ATTRS) as writer:
        writer.append(episodes.episode(0), final_of(episodes, 0))
        with pytest.raises(UserError, match=r"another process is writing to .*set: wait"):
            EpisodeWriter(tmp_path / "set", ATTRS)
    append(tmp_path / "set", episodes, [1])


def test_what_does_not_fit_is_named(tmp_path):
    episodes = make()
    append(tmp_path / "set", episodes, [0])
    with pytest.raises(UserError, match=r"set was begun with fps 10.0, not 20.0: repeat its settings"):
        EpisodeWriter(tmp_path / "set", {**ATTRS, "fps": 20.0})
    other = make(action=3)
    with pytest.raises(UserError, match=r"'data/action' is \('float32', \(3,\)\) but was "):
        append(tmp_path / "set", other, [0])
    empty = {key: value[:0] for key, value in episodes.episode(0).items()}
    with pytest.raises(UserError, match="no steps"), EpisodeWriter(tmp_path / "set", ATTRS) as writer:
        writer.append(empty)
    assert load(tmp_path / "set").hash() == episodes.select([0]).hash()


def test_foreign_and_finished_folders_are_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("keep me")
    with pytest.raises(UserError, match="notes exists already"):
        EpisodeWriter(tmp_path / "notes", ATTRS)
    episodes = make()
    episodes.write(tmp_path / "set")
    with pytest.raises(UserError, match="set is a finished dataset"):
        EpisodeWriter(tmp_path / "set", episodes.attrs)
