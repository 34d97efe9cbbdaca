import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from noisepilot.datasets.rotations import convert
from noisepilot.errors import UserError
from noisepilot.spec import ROTATIONS

ORACLE = {
    "axis_angle": lambda r: r.as_rotvec(),
    "euler_xyz": lambda r: r.as_euler("xyz"),
    "quat_xyzw": lambda r: r.as_quat(canonical=True),
    "quat_wxyz": lambda r: np.roll(r.as_quat(canonical=True), 1, -1),
    "6d": lambda r: r.as_matrix()[:, :2].reshape(-1, 6),
    "matrix": lambda r: r.as_matrix().reshape(-1, 9),
}


def hard_rotations():
    random = Rotation.random(200, rng=np.random.default_rng(0))
    axes = np.concatenate([np.eye(3), -np.eye(3), [[0.6, 0.8, 0]]])
    turns = [angle * axes for angle in (0, 1e-14, 1e-7, np.pi / 2 - 1e-3, np.pi - 1e-6, np.pi)]
    return Rotation.concatenate([random, Rotation.from_rotvec(np.concatenate(turns))])


@pytest.mark.parametrize("source", ROTATIONS)
@pytest.mark.parametrize("target", ROTATIONS)
def test_every_pair_is_the_same_rotation_as_scipys(source, target):
    rotations = hard_rotations()
    converted = convert(ORACLE[source](rotations), source, target)
    assert converted.shape == (len(rotations), ROTATIONS[target])
    np.testing.assert_allclose(convert(converted, target, "matrix"), ORACLE["matrix"](rotations), atol=1e-7)


@pytest.mark.parametrize("target", ROTATIONS)
def test_numbers_are_scipys(target):
    rotations = Rotation.random(200, rng=np.random.default_rng(1))
    np.testing.assert_allclose(
        convert(ORACLE["matrix"](rotations), "matrix", target), ORACLE[target](rotations), atol=1e-12
    )


def test_gimbal_lock_keeps_the_rotation():
    locked = np.array([[0.3, np.pi / 2, 0.0], [0.3, -np.pi / 2, 0.0]])
    np.testing.assert_allclose(
        convert(convert(locked, "euler_xyz", "matrix"), "matrix", "euler_xyz"), locked, atol=1e-7
    )


def test_leading_shape_and_type_stay():
    value = np.zeros((2, 5, 3), np.float32)
    assert convert(value, "axis_angle", "6d").shape == (2, 5, 6)
    assert convert(value, "axis_angle", "6d").dtype == np.float32


@pytest.mark.parametrize(
    ("value", "source", "message"),
    [
        (np.zeros((1, 3)), "axis-angle", "did you mean 'axis_angle'"),
        (np.zeros((1, 4)), "axis_angle", "has 3 numbers, not 4"),
        (np.zeros((1, 4)), "quat_xyzw", "length zero"),
        (-np.eye(3).reshape(1, 9), "matrix", "no rotations"),
        (np.full((1, 9), np.nan), "matrix", "no rotations"),
    ],
)
def test_what_is_no_rotation_is_refused(value, source, message):
    with pytest.raises(UserError, match=message):
        convert(value, source, "6d")
