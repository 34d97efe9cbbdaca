"""Some observations of a source, and pictures at another size: values, specs, what is refused."""

import numpy as np
import pytest

from noisepilot.config import to_dict
from noisepilot.datasets.episodes import Episodes
from noisepilot.datasets.readers import load, open_source
from noisepilot.datasets.selection import Selected
from noisepilot.datasets.source import collect
from noisepilot.errors import UserError
from noisepilot.experiments.data_verbs import data
from noisepilot.resize import resized
from noisepilot.spec import ArraySpec

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        FRONT: rng.integers(0, 256, (5, 8, 12, 3), dtype=np.uint8),
        WRIST: rng.integers(0, 256, (5, 6, 6, 1), dtype=np.uint8),
        "observation.state": rng.normal(size=(5, 2)).astype(np.float32),
        "action": rng.normal(size=(5, 1)).astype(np.float32),
    }
    final = {key: value[[2, 4]] for key, value in arrays.items() if key.startswith("observation.")}
    specs = to_dict({FRONT: ArraySpec((8, 12, 3)), "observation.state": ArraySpec((2,), unit="m")})
    Episodes(arrays, np.array([3, 5]), {"specs": specs}, final).write(tmp_path / "set")
    return tmp_path / "set"


def test_a_pixel_is_the_mean_of_the_area_it_covers():
    old = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    means = old.reshape(2, 4, 2, 4, 3, 3).mean((2, 4))
    assert np.abs(resized(old, (4, 4)) - means).max() < 0.501  # to the nearest whole number
    row = np.array([0, 90, 240], np.uint8).reshape(1, 1, 3, 1)  # each new pixel covers one and a half old ones
    assert resized(row, (1, 2)).flatten().tolist() == [30, 190]
    assert np.array_equal(resized(old, (8, 12)), old)
    assert (resized(np.full((1, 480, 640, 3), 255, np.uint8), (84, 97)) == 255).all()


def test_the_verb_takes_some_observations_and_changes_pictures_alone(path, tmp_path, capsys):
    before, target = load(path), str(tmp_path / "small")
    argv = ["convert", str(path), target, "--observe", "images.front", "state", "--size", "4", "6"]
    assert data(argv) == 0
    after = load(target)
    assert after.obs_keys == (FRONT, "observation.state")
    assert after.data[FRONT].shape == (5, 4, 6, 3)
    assert after.final[FRONT].shape == (2, 4, 6, 3)
    assert np.array_equal(after.data["observation.state"], before.data["observation.state"])
    assert after.specs()[FRONT].shape == (4, 6, 3)
    assert after.specs()["observation.state"].unit == "m"
    assert after.attrs["notes"] == ["pictures made 4 x 6 (height x width) by the mean over areas"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observe": ("images.front", "stat")}, "unknown observation 'stat': did you mean 'state'"),
        ({"size": (0, 4)}, "height and width must be at least 1"),
    ],
)
def test_what_cannot_be_taken_is_refused(path, options, words):
    with pytest.raises(UserError, match=words):
        collect(Selected(open_source(path), **options))
