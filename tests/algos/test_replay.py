"""Rings in memory and on disk: the newest transitions, the same draws, resumable."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.algos import disk_replay
from noisepilot.algos.disk_replay import DiskReplay
from noisepilot.algos.replay import Experience, Replay, columns, join, mixed
from noisepilot.errors import UserError
from noisepilot.experiments.checkpoint import load_state, save_state

from ..policies.toys import generator


def numbered(first, count, **extras):
    """Transitions whose every number says which one it is."""
    i = torch.arange(first, first + count)
    return Experience(
        obs={"state": i.double()[:, None, None].expand(-1, 2, 3), "camera": (i % 256).byte()[:, None, None]},
        action=i.float()[:, None, None].expand(-1, 4, 2),
        reward=i.float()[:, None].expand(-1, 4),
        length=i % 4 + 1,
        terminated=i % 3 == 0,
        next_obs={"state": i.double()[:, None, None].expand(-1, 2, 3) + 1, "camera": (i % 256).byte()[:, None, None]},
        extras={name: i.float() * value for name, value in extras.items()},
    )


def assert_same(a, b):
    a, b = columns(a), columns(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def held(replay):
    return set(replay.sample(2_000, generator()).action[:, 0, 0].int().tolist())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_ring_keeps_the_newest(capacity, counts):
    replay, total = Replay(capacity), 0
    for count in counts:
        replay.add(numbered(total, count, log_prob=2.0))
        total += count
    assert len(replay) == min(total, capacity)
    assert held(replay) == set(range(max(0, total - capacity), total))
    batch = replay.sample(8, generator())
    i = batch.action[:, 0, 0].long()
    assert_same(batch, join([numbered(int(k), 1, log_prob=2.0).map(_as_stored) for k in i]))


def _as_stored(value):
    return value.float() if value.dtype == torch.float64 else value


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 3))
def test_disk_draws_what_memory_draws(tmp_path_factory, capacity, counts, chunk):
    folder = tmp_path_factory.mktemp("disk")
    memory, disk, total = Replay(capacity), _small_chunks(folder / "replay", capacity, chunk), 0
    for count in counts:
        for replay in (memory, disk):
            replay.add(numbered(total, count))
        total += count
        disk.tree()
        assert_same(memory.sample(9, generator(total)), disk.sample(9, generator(total)))


def _small_chunks(folder, capacity, rows):
    """A disk replay whose chunks hold few rows."""
    before, disk_replay.CHUNK_BYTES = disk_replay.CHUNK_BYTES, 32 * rows
    replay = DiskReplay(folder, capacity)
    replay.add(numbered(0, 1))
    disk_replay.CHUNK_BYTES = before
    replay.total = 0
    return replay


def test_memory_resumes(tmp_path):
    replay = Replay(10)
    replay.add(numbered(0, 13))
    save_state(tmp_path, {"replay": replay.tree()})
    again = Replay(10)
    again.load(load_state(tmp_path)["replay"])
    for r in (replay, again):
        r.add(numbered(13, 4))
    assert_same(replay.sample(50, generator()), again.sample(50, generator()))
    with pytest.raises(UserError, match="resume with the same one"):
        Replay(9).load(replay.tree())
    empty = Replay(10)
    empty.load(Replay(10).tree())
    assert len(empty) == 0


def test_disk_resumes_from_either_checkpoint(tmp_path):
    disk, memory = _small_chunks(tmp_path / "replay", 10, 2), {}
    trees = {}
    for k in range(12):
        disk.add(numbered(5 * k, 5))
        ring = Replay(10)
        ring.add(numbered(0, 5 * k + 5))
        trees[k], memory[k] = disk.tree(), ring
    disk.add(numbered(60, 7))  # what a killed run had added since
    for k in (10, 11):
        again = DiskReplay(tmp_path / "replay", 10)
        again.load(trees[k])
        assert_same(memory[k].sample(50, generator()), again.sample(50, generator()))
    # A chunk holds 4 rewards; the ring of the checkpoint before the newest but one began at row 40.
    assert min(int(p.name) for p in (tmp_path / "replay" / "reward" / "c").iterdir()) == 40 // 4
    again.add(numbered(60, 5))
    memory[11].add(numbered(60, 5))
    assert_same(memory[11].sample(50, generator()), again.sample(50, generator()))
    with pytest.raises(UserError, match="resume with the same one"):
        DiskReplay(tmp_path / "replay", 11).load(trees[11])


def test_disk_refuses_what_is_not_its_own(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="choose another folder"):
        DiskReplay(tmp_path, 10)
    first = DiskReplay(tmp_path / "replay", 10)
    first.add(numbered(0, 3))
    DiskReplay(tmp_path / "replay", 10).add(numbered(0, 3))  # killed before its first checkpoint: begun anew
    first = DiskReplay(tmp_path / "replay", 10)
    first.add(numbered(0, 3))
    tree = first.tree()
    with pytest.raises(UserError, match="another run"):
        DiskReplay(tmp_path / "replay", 10).add(numbered(0, 3))
    with pytest.raises(UserError, match="lacks transitions"):
        DiskReplay(tmp_path / "replay", 10).load({**tree, "total": 4})


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 16), (0.5, 32), (1.0, 64)])
def test_shares(share, expected):
    online, demos = Replay(100), Replay(100)
    online.add(numbered(0, 50, log_prob=1.0))
    demos.add(numbered(1000, 50))
    batch = mixed(online, demos, 64, share, generator())
    assert len(batch) == 64
    assert (batch.action[:, 0, 0] >= 1000).sum() == expected
    assert ("log_prob" in batch.extras) == (share == 0)


def test_errors():
    replay = Replay(10)
    with pytest.raises(UserError, match="the replay is empty"):
        replay.sample(3)
    replay.add(numbered(0, 3))
    with pytest.raises(UserError, match=r"'extras/log_prob' is .* but was absent"):
        replay.add(numbered(0, 3, log_prob=1.0))
    with pytest.raises(UserError, match=r"share of 1\.5"):
        mixed(replay, replay, 4, 1.5, generator())
    with pytest.raises(UserError, match="room for at least 1"):
        Replay(0)
