"""Joining sets, and taking their first steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from noisepilot.datasets.checks import check
from noisepilot.datasets.mix import first_steps, join
from noisepilot.datasets.readers import load
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data

from .sets import make


def test_first_steps_cut_the_last_episode_off():
    episodes = make((5, 1, 7))
    part = first_steps(episodes, 8)
    np.testing.assert_array_equal(part.lengths, [5, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(part.data["next.truncated"]), [4, 5, 7])
    assert not part.data["next.terminated"].any()
    for key in part.obs_keys:
        np.testing.assert_array_equal(part.final[key][:2], episodes.final[key][:2])
        np.testing.assert_array_equal(part.final[key][2], episodes.data[key][8])
    assert not episodes.data["next.truncated"][7]


@pytest.mark.parametrize("steps", [6, 13])
def test_first_steps_at_the_end_of_an_episode_cut_nothing(steps):
    episodes = make((5, 1, 7))
    part = first_steps(episodes, steps)
    np.testing.assert_array_equal(part.ends, [end for end in (5, 6, 13) if end <= steps])
    for key in part.data:
        np.testing.assert_array_equal(part.data[key], episodes.data[key][:steps])
    for key in part.final:
        np.testing.assert_array_equal(part.final[key], episodes.final[key][: len(part)])


@pytest.mark.parametrize("steps", [0, 14])
def test_more_steps_than_there_are(steps):
    with pytest.raises(UserError, match=f"{steps} steps of toy are wanted, but it has 13"):
        first_steps(make((5, 1, 7)), steps)


def test_join_keeps_every_episode_and_says_where_it_is_from():
    parts = [make((3, 2), seed=1), make((4,), seed=2)]
    mixed = join(parts)
    np.testing.assert_array_equal(mixed.lengths, [3, 2, 4])
    for index, (part, row) in enumerate([(parts[0], 0), (parts[0], 1), (parts[1], 0)]):
        for key, value in part.episode(row).items():
            np.testing.assert_array_equal(mixed.episode(index)[key], value)
        for key, value in part.final.items():
            np.testing.assert_array_equal(mixed.final[key][index], value[row])
    assert [part["steps"] for part in mixed.attrs["parts"]] == [5, 4]
    assert (mixed.attrs["env"], mixed.attrs["fps"], mixed.attrs["source"]) == ("Toy-v0", 10.0, "toy")


def test_only_sets_that_fit_are_mixed():
    with pytest.raises(UserError, match="different keys"):
        join([make(), make(success=False)])
    paid = replace(make(), attrs={"env": "Toy-v0", "env_kwargs": {"reward_type": "penalty"}})
    with pytest.raises(UserError, match="different reward_type cannot be mixed: None and penalty"):
        join([make(), paid])
    with pytest.raises(UserError, match="at least one set"):
        join([])


def test_mix_joins_formats(shared_data, tmp_path):
    """A D4RL file and a collected set of the same environment, as `hopper-medium-expert` is made."""
    pytest.importorskip("h5py")
    expert = f"{shared_data}/policies/policies_hopper_trpo_26snapshots.npz:iter0000500"
    medium = f"{shared_data}/demos/d4rl_style/hopper-medium-regen.hdf5"
    collected, target = str(tmp_path / "expert.zarr"), str(tmp_path / "mix.zarr")
    assert data(["collect", "Hopper-v5", "--actor", expert, "--noise", "1", "--steps", "1500", "--out", collected]) == 0
    assert 1500 <= load(collected).num_steps < 2600
    assert data(["mix", target, medium, collected, "--steps", "1500"]) == 0
    mixed = load(target)
    assert mixed.num_steps == 3000
    assert [part["steps"] for part in mixed.attrs["parts"]] == [1500, 1500]
    assert mixed.attrs["parts"][1]["mean_return"] > mixed.attrs["parts"][0]["mean_return"]
    ended = mixed.data["next.terminated"] | mixed.data["next.truncated"]
    np.testing.assert_array_equal(np.flatnonzero(ended), mixed.ends - 1)
    # Nothing is lost at the seams: what a step led to is what the next one starts from, and the final one is known.
    np.testing.assert_array_equal(mixed.next_obs("state")[0], mixed.data["observation.state"][1])
    assert [finding for finding in check(mixed) if finding.level == "error"] == []
