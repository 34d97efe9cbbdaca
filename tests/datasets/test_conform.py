"""A recorded set fitted to an environment: what is kept, relabelled, cut and clipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from noisepilot.datasets.checks import check
from noisepilot.datasets.conform import conform
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data
from noisepilot.spec import ArraySpec, EnvSpec

SPEC = EnvSpec(
    id="Line-v0",
    obs={"state": ArraySpec((1,))},
    action=ArraySpec((1,), low=(-1.0,), high=(1.0,)),
    control_hz=5.0,
    max_steps=10,
    kwargs={"goal": 3},
)


class Line:
    """Success beyond 3, which ends the episode."""

    def relabel(self, obs):
        there = obs["state"][:, 0] >= 3
        return {"state": obs["state"], "reward": there.astype(np.float32), "terminated": there}


def walk(*positions, final=False):
    """Episodes along the given positions; the action of each row is a tenth of its place in the set."""
    rows = np.concatenate(positions).astype(np.float32)
    observations = {"observation.state": rows[:, None], "observation.other": rows[:, None] + 1}
    action = np.arange(len(rows), dtype=np.float32)[:, None] / 4
    ends = np.cumsum([len(p) for p in positions])
    last = {key: np.full((len(ends), 1), 9.0, np.float32) for key in observations} if final else {}
    return Episodes({**observations, "action": action}, ends, {"source": "walk", "env": ""}, last)


def test_without_a_task_only_names_limits_and_facts():
    fitted, notes = conform(walk([0, 1], [0, 2, 4, 6, 8]), SPEC)
    assert fitted.obs_keys == ("observation.state",)
    np.testing.assert_allclose(fitted.data["action"][:, 0], [0, 0.25, 0.5, 0.75, 1, 1, 1])
    assert not any(key.startswith("next.") for key in fitted.data)
    assert notes == [
        "observation.other left out: Line-v0 does not have them",
        "actions clipped in 28.6 % of the steps, by up to 0.5",
    ]
    assert {key: fitted.attrs[key] for key in ("env", "env_kwargs", "fps", "source", "notes")} == {
        "env": "Line-v0",
        "env_kwargs": {"goal": 3},
        "fps": 5.0,
        "source": "walk",
        "notes": notes,
    }
    assert [finding for finding in check(fitted, SPEC) if finding.level == "error"] == []


def test_a_set_of_another_environment_becomes_this_one_s():
    there = walk([0, 1], [0, 2, 4])
    there = replace(there, attrs={**there.attrs, "env": "Curve-v0"})
    assert check(there, SPEC)[0].key == "env"
    fitted, notes = conform(there, SPEC)
    assert "recorded in Curve-v0, taken as Line-v0" in notes
    assert [finding.key for finding in check(fitted, SPEC) if finding.level == "error"] == []


def test_outcomes_belong_to_the_step_that_led_there_and_episodes_end_there():
    fitted, notes = conform(walk([0, 1, 2], [0, 2, 4, 6, 8]), SPEC, Line())
    np.testing.assert_array_equal(fitted.lengths, [3, 2])
    np.testing.assert_array_equal(fitted.data["observation.state"][:, 0], [0, 1, 2, 0, 2])
    np.testing.assert_array_equal(fitted.data["next.reward"], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(fitted.data["next.terminated"], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(fitted.data["next.truncated"], [0, 0, 1, 0, 0])
    assert fitted.final == {}  # no observation is made up
    assert notes[0].startswith("what an episode's last action led to is not recorded")
    assert notes[1] == "3 steps behind the end of an episode are left out"


def test_a_recorded_final_observation_is_used():
    fitted, notes = conform(walk([0, 1, 2], final=True), SPEC, Line())
    np.testing.assert_array_equal(fitted.data["next.reward"], [0, 0, 1])
    np.testing.assert_array_equal(fitted.final["observation.state"], [[9]])
    assert not notes[0].startswith("what an episode's last action")


def test_an_environment_of_other_observations_is_refused():
    spec = EnvSpec("Else-v0", {"goal": ArraySpec((2,))}, SPEC.action, 5.0, 10)
    with pytest.raises(UserError, match=r"Else-v0 has 'observation.goal', the set only observation.other"):
        conform(walk([0, 1]), spec)


def test_convert_fits_the_human_door_demonstrations(shared_data, tmp_path, capsys):
    pytest.importorskip("gymnasium_robotics")
    source, target = str(shared_data / "demos" / "adroit_door_human25.npz"), str(tmp_path / "door.zarr")
    keywords = '{"reward_type": "penalty", "terminate_on_success": true}'
    assert data(["convert", source, target, "--env", "AdroitHandDoor-v1", "--env-kwargs", keywords]) == 0
    assert "actions clipped in 82 % of the steps, by up to 0.366" in capsys.readouterr().out
    door = load(target)
    assert (len(door), door.action_spec().low) == (25, (-1.0,) * 28)
    assert np.abs(door.data["action"]).max() == 1
    assert door.success_rate() == 7 / 25
    np.testing.assert_array_equal(door.data["next.terminated"], door.data["next.success"] > 0)
    np.testing.assert_array_equal(door.data["next.reward"], door.data["next.success"] - 1)
    assert (door.data["next.terminated"] | door.data["next.truncated"])[door.ends - 1].all()
    assert data(["check", target, "--env", "AdroitHandDoor-v1"]) == 0
