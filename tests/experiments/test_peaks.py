"""The largest value of a signal in every episode, as PushT's coverage is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.ledger import Ledger

from .toys import SPEC, Line, Pusher

SEEDS = range(1000, 1020)


class Measured(Line):
    """Says where the point is, falling from a peak at 0.5."""

    spec = replace(SPEC, signals=("success", "nearness"))

    def step(self, action):
        step = super().step(action)
        return replace(step, signals={**step.signals, "nearness": -(step.obs["state"][..., 0] - 0.5).abs()})


@pytest.mark.parametrize("num_envs", [1, 7])
def test_peaks_are_the_largest_values_of_valid_steps(num_envs):
    ledger = evaluate(Pusher(), Measured(num_envs), SEEDS)
    alone = [evaluate(Pusher(), Measured(1), [seed], n_action_steps=3).peaks["nearness"][0] for seed in SEEDS]
    np.testing.assert_array_equal(ledger.peaks["nearness"], alone)
    assert len(np.unique(ledger.peaks["nearness"])) > 10
    # Whoever got across came by: never farther from 0.5 than half the longest push.
    assert (ledger.peaks["nearness"][ledger.success == 1] > -0.5).all()


def test_peaks_travel_with_the_ledger(tmp_path):
    ledger = evaluate(Pusher(), Measured(4), SEEDS)
    ledger.save(tmp_path / "a.json")
    again = Ledger.load(tmp_path / "a.json")
    np.testing.assert_array_equal(again.peaks["nearness"], ledger.peaks["nearness"])
    assert again.summary()["max_nearness"]["mean"] == pytest.approx(ledger.peaks["nearness"].mean())
    assert ledger.metrics()["eval/max_nearness"] == pytest.approx(ledger.peaks["nearness"].mean())
    some = ledger.at(np.array([1003, 1001]))
    np.testing.assert_array_equal(some.peaks["nearness"], ledger.peaks["nearness"][[3, 1]])


def test_an_environment_without_further_signals_has_no_peaks():
    assert evaluate(Pusher(), Line(2), [1, 2]).peaks == {}
