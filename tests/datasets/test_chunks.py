import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.datasets.chunks import Chunks
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.errors import UserError

from .sets import make

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def numbered(lengths):
    """Every row says which it is."""
    steps = sum(lengths)
    rows = np.arange(steps, dtype=np.float64)[:, None]
    return Episodes({"observation.state": rows, "action": rows + 0.5}, np.cumsum(lengths))


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 8), st.integers(1, 4))
def test_padded_windows_start_everywhere_and_repeat_the_borders(lengths, horizon, history):
    chunks = Chunks(numbered(lengths), horizon, history)
    batch = chunks.batch(torch.arange(len(chunks)))
    wanted_obs, wanted_action = [], []
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        for step in range(length):
            wanted_obs.append([start + max(step - back, 0) for back in reversed(range(history))])
            wanted_action.append([start + min(step + ahead, length - 1) + 0.5 for ahead in range(horizon)])
    assert batch.obs["state"][..., 0].tolist() == wanted_obs
    assert batch.action[..., 0].tolist() == wanted_action
    assert batch.action.dtype == batch.obs["state"].dtype == torch.float32


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_past_actions_follow_the_window_and_repeat_the_first(lengths, horizon, past, pad):
    if not pad and max(lengths) < horizon:
        return
    plain = Chunks(numbered(lengths), horizon, pad=pad)
    chunks = Chunks(numbered(lengths), horizon, pad=pad, past_actions=past)
    indices = torch.arange(len(plain))
    batch, wanted = chunks.batch(indices), plain.batch(indices)
    assert len(chunks) == len(plain)
    assert torch.equal(batch.action[:, :horizon], wanted.action)
    step = wanted.obs["state"][:, 0]  # numbered through all episodes
    first = torch.cat([torch.full((n,), sum(lengths[:i])) for i, n in enumerate(lengths)])[step[:, 0].long(), None]
    before = torch.maximum(step - torch.arange(past, 0, -1), first.float()) + 0.5
    assert torch.equal(batch.action[:, horizon:, 0], before)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 6), st.integers(1, 4))
def test_unpadded_windows_are_the_padded_ones_that_stay_inside(lengths, horizon, history):
    count = sum(max(length - horizon + 1, 0) for length in lengths)
    if count == 0:
        with pytest.raises(UserError, match=f"no episode is as long as horizon {horizon} "):
            Chunks(numbered(lengths), horizon, history, pad=False)
        return
    chunks = Chunks(numbered(lengths), horizon, history, pad=False)
    batch = chunks.batch(torch.arange(len(chunks)))
    assert len(chunks) == count
    assert (batch.action.diff(dim=1) == 1).all()
    np.testing.assert_array_equal(batch.obs["state"][:, -1] + 0.5, batch.action[:, 0])


def test_dppo_windows_of_a_real_set(shared_data):
    episodes = load(shared_data / "demos/d4rl_style/hopper-medium-regen.hdf5")
    assert len(Chunks(episodes, 4, pad=False)) == 198_823
    assert len(Chunks(episodes, 4)) == 200_197


def test_sample_repeats_by_generator_and_stays_inside():
    chunks = Chunks(make((5, 9)), 3, 2)
    first, again = (chunks.sample(50, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.action, again.action)
    assert first.action.shape == (50, 3, 2)
    assert {name: tuple(value.shape) for name, value in first.obs.items()} == {
        "state": (50, 2, 3),
        "goal": (50, 2, 2),
    }


def test_epoch_shows_every_window_once():
    chunks = Chunks(numbered([4, 6]), 2)
    batches = list(chunks.epoch(4, torch.Generator().manual_seed(0)))
    assert [len(batch.action) for batch in batches] == [4, 4, 2]
    seen = torch.cat([batch.obs["state"].flatten() for batch in batches])
    assert sorted(seen.tolist()) == list(range(10))
    assert seen.tolist() != list(range(10))
    assert [len(batch.action) for batch in chunks.epoch(4, drop_last=True)] == [4, 4]


def test_batches_are_copies():
    chunks = Chunks(make(), 3)
    kept = chunks.batch(torch.arange(4)).action.clone()
    chunks.batch(torch.arange(4)).action.zero_()
    assert torch.equal(chunks.batch(torch.arange(4)).action, kept)


def test_pictures_stay_bytes_and_empty_episodes_are_passed_over():
    data = {"observation.image": np.zeros((3, 4, 4, 3), np.uint8), "action": np.arange(3.0)[:, None]}
    batch = Chunks(Episodes(data, np.array([0, 2, 2, 3])), 2, 2).batch(torch.arange(3))
    assert batch.obs["image"].dtype == torch.uint8
    assert batch.obs["image"].shape == (3, 2, 4, 4, 3)
    assert batch.action[..., 0].tolist() == [[0, 1], [1, 1], [2, 2]]


@pytest.mark.parametrize(("horizon", "history"), [(0, 1), (1, 0)])
def test_widths_below_one_are_refused(horizon, history):
    with pytest.raises(UserError, match="must be at least 1"):
        Chunks(make(), horizon, history)
