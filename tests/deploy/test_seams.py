"""Jerk where chunks meet, by hand."""

import numpy as np
import pytest

from noisepilot.deploy.runtime.seams import Seams, action_range


def test_jerk_by_hand():
    seams = Seams(np.array([2.0, 1.0]))
    # The first element jumps by 2, one range, where chunk 1 begins; the second moves evenly, so it has no jerk.
    for i, source in enumerate([0, 0, 0, 0, 1, 1, 1, 1]):
        seams.push(np.array([0.0 if source == 0 else 2.0, 0.1 * i]), source)
    # Third differences of 0 0 0 0 1 1 1 1 are 0 | 1 -2 1 | 0; the mean is over two elements.
    assert seams.count == 1
    assert seams.jerk() == {"seams": pytest.approx((1 + 2 + 1) / 3 / 2), "inside": pytest.approx(0)}
    assert seams.windows == {"seams": 3, "inside": 2}


def test_episodes_are_apart_and_sums_add_up():
    one, two = Seams(np.ones(1)), Seams(np.ones(1))
    assert one.jerk() == {"seams": None, "inside": None}
    for seams, values in ((one, [0, 0, 0, 6]), (two, [0, 0, 0, 1])):
        for value in values:
            seams.push(np.array([value]), 0)
    one.start()
    one.push(np.array([99.0]), 5)
    total = Seams.together([one, two])
    assert (total.count, total.jerk()) == (0, {"seams": None, "inside": 3.5})


def test_the_range_of_an_action():
    facts = {"shape": (4, 2), "low": [-1, None], "high": None, "seen_low": [0, 3], "seen_high": [4, 3]}
    assert action_range(facts).tolist() == [4, 1]
    assert action_range({"shape": (4, 2), "low": [-1, -2], "high": [1, 3]}).tolist() == [2, 5]
    assert action_range({"shape": (4, 2), "low": None, "high": None}).tolist() == [1, 1]
